"""Promotion by evidence."""
