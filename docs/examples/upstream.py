"""A request to Ratchet from a system of your own: plain Python, to be copied. Any Kafka client sends what `request` gives.

The key file is what `ratchet principal add shop --role upstream --key-file shop.json` wrote; keep it like a password.
Run by itself it prints one proven request: `python upstream.py shop.json banking.intent "where is my card"`.
"""

import hashlib
import hmac
import json
import secrets
import sys
import time
from pathlib import Path

TYPE = "ratchet.request.submitted.v1"
HOLDS_MS = 5 * 60_000  # a proof holds for a day at most: the shorter, the less a stolen record is worth


def read_key(file: Path) -> tuple[str, str, bytes]:
    """Principal, key id and key."""
    said = json.loads(file.read_text(encoding="utf-8"))
    return said["principal"], said["key_id"], bytes.fromhex(said["key"])


def prove(
    who: tuple[str, str, bytes], ce_id: str, ce_type: str, key: bytes, value: bytes, now_ms: int
) -> list[tuple[str, bytes]]:
    """The five headers of a proof over a record. It must reach the broker before `ratchet-proof-until`."""
    principal, key_id, secret = who
    at, until = str(now_ms), str(now_ms + HOLDS_MS)
    parts = [text.encode() for text in ("ratchet-proof/1", principal, key_id, at, until, ce_id, ce_type)]
    parts += [key, hashlib.sha256(value).digest()]
    body = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return [
        ("ratchet-principal", principal.encode()),
        ("ratchet-key", key_id.encode()),
        ("ratchet-proof-at", at.encode()),
        ("ratchet-proof-until", until.encode()),
        ("ratchet-proof", hmac.new(secret, body, hashlib.sha256).hexdigest().encode()),
    ]


def request(
    who: tuple[str, str, bytes], route: str, text: str, now_ms: int
) -> tuple[bytes, bytes, list[tuple[str, bytes]]]:
    """Key, value and headers for the topic `ratchet.requests`, partitioner murmur2 (librdkafka: `murmur2_random`).

    Who sends again after a failure sends these same bytes: the id says that it is the same request.
    """
    request_id = f"shop-{secrets.token_hex(16)}"
    said = {"at_ms": now_ms, "route": route, "request_id": request_id, "messages": [{"role": "user", "content": text}]}
    key, value = request_id.encode(), json.dumps(said).encode()
    named = [("ce_specversion", b"1.0"), ("ce_id", key), ("ce_type", TYPE.encode()), ("ce_source", b"shop")]
    return key, value, named + prove(who, request_id, TYPE, key, value, now_ms)


def main() -> None:
    file, route, text = sys.argv[1:]
    key, value, headers = request(read_key(Path(file)), route, text, time.time_ns() // 1_000_000)
    shown = {"key": key.decode(), "value": value.decode(), "headers": {name: data.decode() for name, data in headers}}
    sys.stdout.write(json.dumps(shown) + "\n")


if __name__ == "__main__":
    main()
