"""OpenSSF model-signing's own verifier takes our adapter statement under an EC key, and refuses a changed adapter."""

from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from model_signing import verifying

from infra.adapters import AdapterPredicate, GoldenProbe, model_signature, read_statement, sign_adapter, write_probes

OURS = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PREDICATE = AdapterPredicate(
    base="sha256:" + "b" * 64,
    tree="sha256:" + "0" * 64,
    dataset="sha256:" + "d" * 64,
    cutoff_ms=1_700_000_000_000,
    settings={"rank": "16"},
    code="0.1.0",
    metrics={"test_accuracy": "0.81"},
)
CURVES = [(ec.SECP256R1(), hashes.SHA256()), (ec.SECP384R1(), hashes.SHA384())]


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """Files whose order by name is not that of the folders' walk: `a-b` stands before `a/c`."""
    made = tmp_path / "adapter"
    (made / "a").mkdir(parents=True)
    for name in ("a/c", "a-b", "adapter_config.json", "adapter_model.safetensors"):
        (made / name).write_bytes(name.encode() * 50)
    write_probes(made, [GoldenProbe("Customer: hi\nIntent:", "größe")])
    return made


@pytest.fixture(params=CURVES, ids=["P-256", "P-384"])
def signed(request: Any, adapter: Path, tmp_path: Path) -> verifying.Config:
    """The adapter's signature file, and their verifier with the key's public half."""
    curve, digest = request.param
    key = ec.generate_private_key(curve)
    pem = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    envelope = sign_adapter(adapter, PREDICATE, OURS.sign, "ours", name="banking")
    assert read_statement(envelope, {"ours": OURS.public_key().public_bytes_raw()}).predicate == PREDICATE
    (tmp_path / "key.pub").write_bytes(pem)
    (tmp_path / "model.sig").write_bytes(model_signature(envelope, lambda body: key.sign(body, ec.ECDSA(digest)), pem))
    return verifying.Config().use_elliptic_key_verifier(public_key=tmp_path / "key.pub")


def test_their_verifier_takes_it(signed: verifying.Config, adapter: Path, tmp_path: Path) -> None:
    """Signature, root digest and every file agree."""
    signed.verify(adapter, tmp_path / "model.sig")


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        ("changed", "Hash mismatch for"),
        ("added", "Extra files"),
        ("missing", "Missing files"),
        ("statement", None),
    ],
)
def test_their_verifier_refuses_a_change(
    signed: verifying.Config, adapter: Path, tmp_path: Path, spoil: str, error: str | None
) -> None:
    """A changed, added or missing file, or one changed byte of the statement."""
    if spoil == "changed":
        (adapter / "a" / "c").write_bytes(b"other")
    elif spoil == "added":
        (adapter / "more").write_bytes(b"x")
    elif spoil == "missing":
        (adapter / "a-b").unlink()
    else:
        text = (tmp_path / "model.sig").read_text()
        (tmp_path / "model.sig").write_text(text.replace('"payload":"eyJ', '"payload":"eyK', 1))
    with pytest.raises(ValueError if error else InvalidSignature, match=error):
        signed.verify(adapter, tmp_path / "model.sig")
