"""Keys out of a key: HKDF-SHA-256 (RFC 5869) without a salt, 32 bytes out."""

import hmac


def hkdf(key: bytes, info: bytes) -> bytes:
    """The key for this purpose: who holds it learns nothing of `key`, nor of the key for another `info`."""
    extracted = hmac.digest(bytes(32), key, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")
