"""Windowed views of the stream; decides nothing."""
