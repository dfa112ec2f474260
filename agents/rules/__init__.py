"""Pure rules that several agents share. No I/O, no clock, no randomness."""
