"""Answers from engines, stored once."""
