"""Mutated records against the decoder and the agents: `python -m tools.fuzz`."""
