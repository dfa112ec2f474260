"""Statements about entries: in-toto in DSSE, bound to their entry, the same bytes each time."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from evidenced import ADAPTER_HEX, ATTESTER, ATTESTER_KEY, KEY_ID, Book, learn

from agents.evidence.attest import STATEMENTS, SigningAttestor, kind_of, path_of, statement
from schemas import canonical
from schemas.dsse import PAYLOAD_TYPE, envelope, pae
from schemas.errors import Unavailable

ORIGIN = "dev.ratchet.test"


@pytest.fixture
def learnt(tmp_path: Path) -> list[bytes]:
    """training.completed, adapter.registered, promotion.evaluated, model.promoted."""
    book = Book.new(tmp_path)
    learn(book)
    return book.batch


def resources(value: Any) -> list[dict[str, Any]]:
    """Every object with a digest, wherever it stands."""
    if isinstance(value, list):
        return [found for item in value for found in resources(item)]
    if not isinstance(value, dict):
        return []
    own = [value] if "digest" in value else []
    return own + [found for item in value.values() for found in resources(item)]


def test_pae_and_envelope() -> None:
    """DSSE's own example of what is signed; the envelope's one spelling."""
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    assert envelope(b"{}", "k", b"\x00") == (
        b'{"payload":"e30=","payloadType":"application/vnd.in-toto+json","signatures":[{"keyid":"k","sig":"AA=="}]}'
    )


@pytest.mark.parametrize(
    ("number", "word", "predicate"),
    [
        (0, "training", "https://slsa.dev/provenance/v1"),
        (3, "promotion", "https://in-toto.io/attestation/test-result/v0.1"),
    ],
)
async def test_a_statement_is_bound_to_its_entry(learnt: list[bytes], number: int, word: str, predicate: str) -> None:
    """Signed by the attester, about the adapter, naming origin, index and the digest of the entry's bytes."""

    async def sign(body: bytes) -> bytes:
        return ATTESTER.sign(body)

    entry = learnt[number]
    attestor = SigningAttestor(ORIGIN, KEY_ID, sign)
    data = await attestor.attest(7, entry)
    assert data == await attestor.attest(7, entry)
    outer = json.loads(data)
    payload = base64.b64decode(outer["payload"])
    assert outer["signatures"][0]["keyid"] == KEY_ID
    signature = base64.b64decode(outer["signatures"][0]["sig"])
    Ed25519PublicKey.from_public_bytes(ATTESTER_KEY).verify(signature, pae(PAYLOAD_TYPE, payload))
    said = json.loads(payload)
    assert (said["_type"], said["predicateType"]) == ("https://in-toto.io/Statement/v1", predicate)
    assert {"name": "adapter", "digest": {"sha256": ADAPTER_HEX}} in said["subject"]
    assert resources(said["predicate"])[-1 if word == "training" else 0] == {
        "name": "evidence-log-entry",
        "uri": f"{ORIGIN}#7",
        "digest": {"sha256": hashlib.sha256(entry).hexdigest()},
    }
    kind = kind_of(entry)
    assert kind is not None
    assert path_of(7, kind) == f"attestations/7-{word}.dsse.json"


def test_provenance_names_what_went_in(learnt: list[bytes]) -> None:
    """Dataset, order, rows and measures of the run, from the entry alone."""
    predicate = json.loads(statement(ORIGIN, 1, learnt[0]))["predicate"]
    definition, run = predicate["buildDefinition"], predicate["runDetails"]
    assert definition["resolvedDependencies"] == [{"name": "dataset", "digest": {"sha256": "2" * 64}}]
    assert definition["externalParameters"] == {"tenant": "acme", "route": "banking", "order": "order-1"}
    assert run["metadata"] == {"invocationId": "order-1", "finishedOn": "2026-09-21T14:13:20Z"}
    measured = json.loads(base64.b64decode(run["byproducts"][1]["content"]))
    assert measured["metrics"] == {"test_accuracy": "0.81"}


def test_only_these_entries_make_statements(learnt: list[bytes]) -> None:
    """Other types do not, whatever stands inside them."""
    assert [kind_of(entry) for entry in learnt] == ["training.completed", None, None, "model.promoted"]
    inside = canonical.encode({"v": 1, "type": "x", "facts": {"a": {"type": "model.promoted"}}})
    assert kind_of(inside) is None


@pytest.mark.parametrize(
    "facts", [{}, {"facts_too_large": True}, {"adapter": 7, "tree": ["x"], "dataset": "sha256:no"}]
)
@pytest.mark.parametrize("kind", ["training.completed", "model.promoted"])
def test_poor_entries_make_poor_statements(kind: str, facts: dict[str, Any]) -> None:
    """An entry that names no artifact is itself the subject: in-toto asks for one."""
    entry = canonical.encode({"v": 1, "type": kind, "facts": facts})
    said = json.loads(statement(ORIGIN, 3, entry))
    assert [subject["name"] for subject in said["subject"]] == ["evidence-log-entry"]


async def test_the_signer_away(learnt: list[bytes]) -> None:
    """Its Unavailable is the caller's."""

    async def sign(_: bytes) -> bytes:
        raise Unavailable("sealed")

    with pytest.raises(Unavailable, match="sealed"):
        await SigningAttestor(ORIGIN, KEY_ID, sign).attest(0, learnt[0])


def test_a_statements_file_is_named_by_its_entry() -> None:
    """Where statements are kept and where an export looks for them."""
    assert [path_of(5, kind) for kind in STATEMENTS] == [
        "attestations/5-training.dsse.json",
        "attestations/5-promotion.dsse.json",
    ]
