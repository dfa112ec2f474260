"""When two texts say the same: the one normalisation that grading and curation share."""

import unicodedata


def normalise(text: str) -> str:
    """Unicode NFC, case-folded, every run of white space one space, none at the ends. Idempotent."""
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    return " ".join(folded.split())


def same(one: str, other: str) -> bool:
    """Whether the texts are equal once normalised."""
    return normalise(one) == normalise(other)
