"""Events, policies, topics, errors and canonical encodings. pydantic and the standard library only."""
