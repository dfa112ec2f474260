"""How far an answer can be trusted, and the ladder that learns it."""
