"""Strict spellings: what these accept has exactly one form."""

import base64
import binascii
import re

_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")


class Malformed(ValueError):
    """The text is not in the one form that its value has."""


def decode_base64(text: str, what: str) -> bytes:
    """Standard base64 with padding and zero spare bits: decoding and encoding again gives the same text."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise Malformed(f"{what} is not base64") from exc
    if base64.b64encode(data).decode() != text:
        raise Malformed(f"{what} is base64 in another spelling; accepted: standard alphabet, padded, spare bits zero")
    return data


def encode_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def decode_decimal(text: str, what: str) -> int:
    """A decimal number without sign and leading zeroes, below 2^63."""
    if _DECIMAL.fullmatch(text) is None or (value := int(text)) >= 1 << 63:
        raise Malformed(f"{what} {text!r}; accepted: a decimal number without leading zeroes below 2^63")
    return value
