"""The command line, the local stack, benchmarks and the offline verifier."""
