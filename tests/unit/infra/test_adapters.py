"""Signed adapter statements: DSSE, in-toto, and not one byte otherwise."""

import base64
import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from infra.adapters import (
    PROBES_FILE,
    AdapterPredicate,
    AdapterVerifier,
    GoldenProbe,
    read_probes,
    read_statement,
    sign_adapter,
    verify_adapter,
    write_probes,
)
from infra.artifacts import DirectoryStore, hash_file
from schemas.dsse import pae
from schemas.errors import Refused, Unavailable

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEYS = {"test": KEY.public_key().public_bytes_raw()}
BASE = "sha256:" + "b" * 64
PREDICATE = AdapterPredicate(
    base=BASE,
    tree="sha256:" + "0" * 64,
    dataset="sha256:" + "d" * 64,
    cutoff_ms=1_700_000_000_000,
    settings={"rank": "16"},
    code="0.1.0",
    metrics={"test_accuracy": "0.81"},
    energy_j="12.5",
)
PROBES = (GoldenProbe("Customer: hi\nIntent:", "größe"), GoldenProbe("Customer: x\nIntent:", None))


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    made = tmp_path / "adapter"
    made.mkdir()
    (made / "adapter_config.json").write_bytes(b'{"r": 16}')
    (made / "adapter_model.safetensors").write_bytes(bytes(1000))
    write_probes(made, PROBES)
    return made


def test_pae_is_that_of_the_specification() -> None:
    """DSSE's own example: the bytes that are signed."""
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_a_signed_adapter_verifies_and_says_what_it_is(adapter: Path) -> None:
    """What was signed is read back whole, and the layout is that of in-toto and model-signing."""
    envelope = sign_adapter(adapter, PREDICATE, KEY.sign, "test", name="banking")
    statement = verify_adapter(envelope, adapter, KEYS)
    assert statement.predicate == PREDICATE
    assert (statement.name, statement.keyid) == ("banking", "test")
    assert set(statement.files) == {"adapter_config.json", "adapter_model.safetensors", PROBES_FILE}
    payload = json.loads(base64.b64decode(json.loads(envelope)["payload"]))
    assert payload["_type"] == "https://in-toto.io/Statement/v1"
    assert payload["predicateType"] == "https://model_signing/signature/v1.0"
    assert payload["predicate"]["serialization"]["method"] == "files"


def test_a_statement_holds_no_text_of_a_probe(adapter: Path) -> None:
    """Statements go to auditors: the probes are read from the signed files, and the same ones have another digest each time."""
    envelope = sign_adapter(adapter, PREDICATE, KEY.sign, "test")
    statement = verify_adapter(envelope, adapter, KEYS)
    assert read_probes(adapter, statement) == PROBES
    payload = json.loads(base64.b64decode(json.loads(envelope)["payload"]))
    assert set(payload["predicate"]["ratchet"]) == {field.name for field in fields(AdapterPredicate)}
    assert not any(text in json.dumps(payload, ensure_ascii=False) for text in ("Customer", "größe"))
    write_probes(adapter, PROBES)
    assert hash_file(adapter / PROBES_FILE) != statement.files[PROBES_FILE]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (None, "is missing"),
        ("", r"is not \{"),
        ("[]", r"is not \{"),
        ('{"probes": [{"prompt": "Customer: hi"}]}', r"is not \{"),
        ('{"probes": [{"prompt": "Customer: hi", "adapter_text": 1}]}', r"is not \{"),
        ('{"probes": [{"prompt": null, "adapter_text": "Customer"}]}', r"is not \{"),
        ('{"probes": ["Customer: hi"]}', r"is not \{"),
        ("[" * 100_000, r"is not \{"),
    ],
)
def test_a_missing_or_malformed_probes_file_is_refused_by_name(adapter: Path, text: str | None, named: str) -> None:
    """Though signed: the file is named, what stands in it is not."""
    (adapter / PROBES_FILE).unlink()
    if text is not None:
        (adapter / PROBES_FILE).write_text(text)
    statement = verify_adapter(sign_adapter(adapter, PREDICATE, KEY.sign, "test"), adapter, KEYS)
    with pytest.raises(Refused, match=f"adapter file {PROBES_FILE} {named}") as refused:
        read_probes(adapter, statement)
    assert refused.value.field == PROBES_FILE
    assert "Customer" not in str(refused.value)


def test_probes_that_were_not_signed_are_not_believed(adapter: Path) -> None:
    """Changed after the adapter was verified, or put beside what was signed without them."""
    statement = verify_adapter(sign_adapter(adapter, PREDICATE, KEY.sign, "test"), adapter, KEYS)
    write_probes(adapter, PROBES[:1])
    with pytest.raises(Refused, match=r"ratchet_probes\.json is sha256:\w+, signed was sha256:"):
        read_probes(adapter, statement)
    (adapter / PROBES_FILE).unlink()
    bare = verify_adapter(sign_adapter(adapter, PREDICATE, KEY.sign, "test"), adapter, KEYS)
    write_probes(adapter, PROBES)
    with pytest.raises(Refused, match=r"ratchet_probes\.json is not in the signed statement"):
        read_probes(adapter, bare)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors", PROBES_FILE])
def test_one_flipped_byte_of_a_file_is_refused_by_name(adapter: Path, name: str) -> None:
    """Any byte of any file: refused, naming the file."""
    envelope = sign_adapter(adapter, PREDICATE, KEY.sign, "test")
    data = bytearray((adapter / name).read_bytes())
    data[-1] ^= 1
    (adapter / name).write_bytes(bytes(data))
    with pytest.raises(Refused) as refused:
        verify_adapter(envelope, adapter, KEYS)
    assert refused.value.field == name


def test_a_file_too_many_or_too_few_is_refused_by_name(adapter: Path) -> None:
    """Nothing may lie beside what was signed, nothing may be gone."""
    envelope = sign_adapter(adapter, PREDICATE, KEY.sign, "test")
    (adapter / "extra.py").write_bytes(b"")
    with pytest.raises(Refused, match=r"extra\.py is not in the signed statement"):
        verify_adapter(envelope, adapter, KEYS)
    (adapter / "extra.py").unlink()
    (adapter / "adapter_config.json").unlink()
    with pytest.raises(Refused, match=r"adapter_config\.json is missing"):
        verify_adapter(envelope, adapter, KEYS)


def test_every_flipped_byte_of_the_envelope_is_refused_or_harmless(adapter: Path) -> None:
    """No flipped bit of the envelope lets another statement through."""
    envelope = sign_adapter(adapter, PREDICATE, KEY.sign, "test")
    signed = read_statement(envelope, KEYS)
    passed = 0
    for at in range(0, len(envelope), 7):
        changed = bytearray(envelope)
        changed[at] ^= 1
        try:
            assert read_statement(bytes(changed), KEYS) == signed
            passed += 1
        except Refused:
            continue
    assert passed <= 2  # unused bits at the end of base64 text


Change = Callable[[dict[str, object]], object]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda s: s.update(_type="other"), "_type"),
        (lambda s: s.update(predicateType="other"), "predicateType"),
        (lambda s: s["predicate"]["resources"].pop(), "subject"),
        (lambda s: s["subject"].append(s["subject"][0]), "subject"),
        (lambda s: s["predicate"]["ratchet"].pop("base"), "base"),
        (lambda s: s["predicate"]["ratchet"].update(probes=[]), "holds probes"),
        (lambda s: s.pop("subject"), "subject"),
    ],
)
def test_a_signed_statement_of_another_shape_is_refused(adapter: Path, change: Change, named: str) -> None:
    """A valid signature over something that is no adapter statement is not enough."""
    statement = json.loads(base64.b64decode(json.loads(sign_adapter(adapter, PREDICATE, KEY.sign, "test"))["payload"]))
    change(statement)
    payload = json.dumps(statement).encode()
    kind = "application/vnd.in-toto+json"
    envelope = {
        "payloadType": kind,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"keyid": "test", "sig": base64.b64encode(KEY.sign(pae(kind, payload))).decode()}],
    }
    with pytest.raises(Refused, match=named):
        read_statement(json.dumps(envelope).encode(), KEYS)


def test_only_trusted_keys_count(adapter: Path) -> None:
    """An unknown key id, and a known one with another key, are refused."""
    envelope = sign_adapter(adapter, PREDICATE, KEY.sign, "stranger")
    with pytest.raises(Refused) as refused:
        verify_adapter(envelope, adapter, KEYS)
    assert refused.value.kind == "adapter_signature"
    forged = sign_adapter(adapter, PREDICATE, Ed25519PrivateKey.generate().sign, "test")
    with pytest.raises(Refused) as refused:
        verify_adapter(forged, adapter, KEYS)
    assert refused.value.kind == "adapter_signature"


def test_the_verifier_gives_a_private_copy_or_refuses(adapter: Path, tmp_path: Path) -> None:
    """From the store: the copy is what was verified; another base or a changed stored byte is refused."""
    store = DirectoryStore(tmp_path / "store")
    tree = store.put_tree(adapter)
    name = store.put_bytes(sign_adapter(adapter, replace(PREDICATE, tree=tree), KEY.sign, "test"))
    verifier = AdapterVerifier(store, KEYS)
    folder, statement = verifier.verify(name, BASE, tmp_path / "copy")
    assert folder == tmp_path / "copy"
    assert statement.predicate.tree == tree
    with pytest.raises(Refused) as refused:
        verifier.verify(name, "sha256:" + "c" * 64)
    assert refused.value.kind == "adapter_base"
    stored = store.open_tree(tree) / "adapter_model.safetensors"
    stored.chmod(0o644)
    stored.write_bytes(bytes(999) + b"\x01")
    with pytest.raises(Refused) as refused:
        verifier.verify(name, BASE, tmp_path / "again")
    assert refused.value.field == "adapter_model.safetensors"
    with pytest.raises(Unavailable):
        verifier.verify("sha256:" + "1" * 64, BASE)
