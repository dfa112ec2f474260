"""DSSE envelopes (secure-systems-lab/dsse, protocol.md) around in-toto statements. Pure: whoever signs is passed in."""

import base64

from schemas import canonical

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"


def pae(payload_type: str, payload: bytes) -> bytes:
    """The pre-authentication encoding: what is signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def envelope(payload: bytes, keyid: str, signature: bytes) -> bytes:
    """An in-toto payload with one signature over its `pae`. The same arguments give the same bytes.

    `keyid` is a hint that nothing signs: a reader looks the key up by it, then checks.
    """
    return canonical.encode(
        {
            "payloadType": PAYLOAD_TYPE,
            "payload": base64.b64encode(payload).decode(),
            "signatures": [{"keyid": keyid, "sig": base64.b64encode(signature).decode()}],
        }
    )
