"""A transparency log's formats: RFC 6962 hashing, C2SP tiles, signed notes, checkpoints.

Pure: the standard library only. A signature check is passed in. Parsing is strict, so that no byte can change unseen:
one value has one spelling, everything else is refused with `Malformed`.
"""
