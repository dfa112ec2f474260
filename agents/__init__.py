"""The agents: pure rules and the thin shells that await ports. They meet only on topics."""
