"""When to train, on what, and the jobs that do it."""
