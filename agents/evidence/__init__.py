"""The signed log of everything that happened."""
