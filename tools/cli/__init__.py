"""What the commands of `ratchet` do: one file per group.

Declared in `tools/ratchet.py`, which imports these only when they are called.
"""
