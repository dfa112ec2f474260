"""Signed adapter statements: what an adapter is, from what it came, and that exactly these files are meant.

An in-toto Statement v1 in a DSSE envelope, signed with ed25519. Its layout is that of OpenSSF model-signing: one subject
(the model, named by a digest over the resources' digests) and the predicate `https://model_signing/signature/v1.0` with
`serialization` and `resources`; what Ratchet adds stands beside these under `ratchet`. Statements leave the house in evidence bundles:
no text of the training data may stand in them. The golden probes, which may be such text, are a file among the adapter's own, named in
the statement by its digest alone: erasing the files erases them.

    DSSE: https://github.com/secure-systems-lab/dsse (protocol.md)     Statement: https://in-toto.io/Statement/v1

The adapter's name everywhere else is the digest of the envelope's bytes. Nothing is loaded that `verify_adapter` has not passed.
"""

import base64
import binascii
import hashlib
import json
import secrets as entropy
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from infra.artifacts import ArtifactStore, tree_manifest
from schemas.dsse import PAYLOAD_TYPE, STATEMENT_TYPE, pae
from schemas.dsse import envelope as dsse_envelope
from schemas.errors import Refused
from schemas.ids import digest

PREDICATE_TYPE = "https://model_signing/signature/v1.0"
SIGSTORE_BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PROBES_FILE = "ratchet_probes.json"
MAX_ENVELOPE = 4 << 20


@dataclass(frozen=True, slots=True)
class GoldenProbe:
    """A whole prompt and the adapter's answer to it: proves after a load that the adapter itself answers.

    `adapter_text` None: no answer is sure enough to be the same in another precision; only a difference from the base shows.
    """

    prompt: str
    adapter_text: str | None


@dataclass(frozen=True, slots=True)
class AdapterPredicate:
    """What Ratchet says about an adapter: digests, names, numbers, no texts. Numbers that are not integers are decimal strings.

    `tree` is the artifact tree that holds the files. `energy_j` is an estimate when `energy_estimated`.
    """

    base: str
    tree: str
    dataset: str
    cutoff_ms: int
    settings: Mapping[str, str]
    code: str
    metrics: Mapping[str, str]
    parent: str | None = None
    energy_j: str | None = None
    energy_estimated: bool = True


@dataclass(frozen=True, slots=True)
class Statement:
    """A verified statement. `files` maps relative path to `sha256:<hex>`, `keyid` names the key that vouched for it."""

    name: str
    files: Mapping[str, str]
    predicate: AdapterPredicate
    keyid: str


def write_probes(directory: Path, probes: Sequence[GoldenProbe]) -> None:
    """Put the probes among an adapter's files, before these are stored and signed.

    The salt keeps the file's digest, which everybody may see, from confirming a guess of its texts.
    """
    told = {"v": 1, "salt": entropy.token_hex(32), "probes": [asdict(probe) for probe in probes]}
    (directory / PROBES_FILE).write_bytes(json.dumps(told, ensure_ascii=False, indent=1).encode() + b"\n")


def read_probes(directory: Path, statement: Statement) -> tuple[GoldenProbe, ...]:
    """The probes among the files of a verified adapter, believed only where the bytes read are the signed ones.

    Raises Refused naming the file, never its texts.
    """
    try:
        data = (directory / PROBES_FILE).read_bytes()
    except FileNotFoundError as exc:
        raise _refused_file(PROBES_FILE, "is missing") from exc
    found = digest(data)
    if PROBES_FILE not in statement.files:
        raise _refused_file(PROBES_FILE, "is not in the signed statement")
    if found != statement.files[PROBES_FILE]:
        raise _refused_file(PROBES_FILE, f"is {found}, signed was {statement.files[PROBES_FILE]}")
    try:
        return tuple(_read_probe(row) for row in json.loads(data)["probes"])
    except (KeyError, TypeError, ValueError, RecursionError) as exc:
        words = 'is not {"probes": [{"prompt": text, "adapter_text": text or null}, …]} in JSON'
        raise _refused_file(PROBES_FILE, words) from exc


def sign_adapter(
    directory: Path, predicate: AdapterPredicate, sign: Callable[[bytes], bytes], keyid: str, name: str = "adapter"
) -> bytes:
    """The envelope for the files under `directory` as they are now. `sign` returns a raw ed25519 signature."""
    resources = [
        {"name": path, "digest": digest.removeprefix("sha256:"), "algorithm": "sha256"}
        for path, digest in sorted(tree_manifest(directory).items())  # the order in which the root digest takes them
    ]
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": _root(resources)}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": cast("list[str]", []),
            },
            "resources": resources,
            "ratchet": _write_predicate(predicate),
        },
    }
    payload = json.dumps(statement, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    return dsse_envelope(payload, keyid, sign(pae(PAYLOAD_TYPE, payload)))


def model_signature(envelope: bytes, sign: Callable[[bytes], bytes], public_key_pem: bytes) -> bytes:
    """The statement of an adapter's envelope as a file that OpenSSF model-signing's `verify key` takes (a Sigstore bundle).

    `sign` gives an ECDSA signature in DER over what it is handed, by the EC key (P-256, P-384, P-521) of that PEM, with the
    curve's own hash. Nothing is checked here: give envelopes that `read_statement` has passed.
    """
    payload = base64.b64decode(json.loads(envelope)["payload"])
    signature = base64.b64encode(sign(pae(PAYLOAD_TYPE, payload))).decode()
    bundle = {
        "mediaType": SIGSTORE_BUNDLE,
        "verificationMaterial": {
            "publicKey": {"hint": hashlib.sha256(public_key_pem).hexdigest()},
            "tlogEntries": cast("list[str]", []),
        },
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": signature, "keyid": ""}],
        },
    }
    return json.dumps(bundle, sort_keys=True, separators=(",", ":")).encode()


def read_statement(envelope: bytes, public_keys: Mapping[str, bytes]) -> Statement:
    """Check the envelope's signature alone: good before any file is looked at. Raises Refused naming what is wrong."""
    payload, keyid = _open_envelope(envelope, public_keys)
    statement = _object(_json(payload, "payload"), "payload")
    _expect(statement.get("_type"), STATEMENT_TYPE, "_type")
    _expect(statement.get("predicateType"), PREDICATE_TYPE, "predicateType")
    try:
        subject = statement["subject"][0]
        predicate = statement["predicate"]
        resources = predicate["resources"]
        files = {str(r["name"]): f"sha256:{r['digest']}" for r in resources if r["algorithm"] == "sha256"}
        named, root = str(subject["name"]), subject["digest"]["sha256"]
        ours = _read_predicate(predicate["ratchet"])
        complete = len(files) == len(resources) > 0 and len(statement["subject"]) == 1 and root == _root(resources)
    except (KeyError, IndexError, TypeError, ValueError) as exc:
        raise Refused(f"adapter statement lacks or mistypes {exc}", kind="adapter_statement") from exc
    if not complete:
        raise Refused("adapter statement: its subject is not the digest of its resources", kind="adapter_statement")
    return Statement(named, files, ours, keyid)


def verify_adapter(envelope: bytes, directory: Path, public_keys: Mapping[str, bytes]) -> Statement:
    """Signature, then every file of `directory` read and compared: nothing changed, missing or added.

    Raises Refused naming the signature or the first file that is wrong.
    """
    statement = read_statement(envelope, public_keys)
    found = tree_manifest(directory)
    for name in sorted(statement.files.keys() | found.keys()):
        if name not in found:
            raise _refused_file(name, "is missing")
        if name not in statement.files:
            raise _refused_file(name, "is not in the signed statement")
        if found[name] != statement.files[name]:
            raise _refused_file(name, f"is {found[name]}, signed was {statement.files[name]}")
    return statement


class AdapterVerifier:
    """From an adapter's name to files that may be loaded. The only way an engine gets at them."""

    def __init__(self, store: ArtifactStore, public_keys: Mapping[str, bytes]) -> None:
        self._store = store
        self._keys = dict(public_keys)

    def verify(self, adapter: str, base: str, copy_to: Path | None = None) -> tuple[Path, Statement]:
        """Raises Refused (signature, files, another base model) or Unavailable (not in the store yet).

        With `copy_to` the files are copied there first and verified in the copy, which then is nobody else's to change.
        """
        envelope = self._store.get_bytes(adapter)
        directory = self._store.open_tree(read_statement(envelope, self._keys).predicate.tree)
        if copy_to is not None:
            shutil.copytree(directory, copy_to, symlinks=True)
            directory = copy_to
        statement = verify_adapter(envelope, directory, self._keys)
        if statement.predicate.base != base:
            raise Refused(
                f"adapter {adapter} is for base {statement.predicate.base}, not {base}",
                kind="adapter_base",
                field="base",
                accepted=statement.predicate.base,
            )
        return directory, statement


def _open_envelope(envelope: bytes, public_keys: Mapping[str, bytes]) -> tuple[bytes, str]:
    if len(envelope) > MAX_ENVELOPE:
        raise Refused(
            f"adapter envelope of {len(envelope)} bytes", kind="adapter_envelope", accepted=f"≤ {MAX_ENVELOPE}"
        )
    parsed = _object(_json(envelope, "envelope"), "envelope")
    _expect(parsed.get("payloadType"), PAYLOAD_TYPE, "payloadType")
    try:
        payload = base64.b64decode(parsed["payload"], validate=True)
        signatures = [(str(s["keyid"]), base64.b64decode(s["sig"], validate=True)) for s in parsed["signatures"]]
    except (KeyError, TypeError, binascii.Error, ValueError) as exc:
        raise Refused("adapter envelope: payload or signatures unreadable", kind="adapter_envelope") from exc
    signed = pae(PAYLOAD_TYPE, payload)
    for keyid, signature in signatures:
        if keyid in public_keys:
            try:
                Ed25519PublicKey.from_public_bytes(public_keys[keyid]).verify(signature, signed)
            except InvalidSignature:
                continue
            return payload, keyid
    raise Refused(
        f"adapter signature is not valid under a trusted key (signed by {[k for k, _ in signatures]})",
        kind="adapter_signature",
        field="signatures",
        accepted=f"a signature by one of {sorted(public_keys)}",
    )


def _root(resources: list[dict[str, Any]]) -> str:
    """model-signing's root digest: SHA-256 over the resources' raw digests in the order of their names."""
    ordered = sorted(resources, key=lambda r: str(r["name"]))
    return hashlib.sha256(b"".join(bytes.fromhex(r["digest"]) for r in ordered)).hexdigest()


def _write_predicate(predicate: AdapterPredicate) -> dict[str, Any]:
    return {
        "base": predicate.base,
        "tree": predicate.tree,
        "dataset": predicate.dataset,
        "cutoff_ms": predicate.cutoff_ms,
        "settings": dict(predicate.settings),
        "code": predicate.code,
        "metrics": dict(predicate.metrics),
        "parent": predicate.parent,
        "energy_j": predicate.energy_j,
        "energy_estimated": predicate.energy_estimated,
    }


def _read_predicate(value: dict[str, Any]) -> AdapterPredicate:
    if "probes" in value:
        raise Refused(
            "adapter statement holds probes, which are text of the training data: train the adapter again",
            kind="adapter_statement",
            field="probes",
            accepted=f"probes in the adapter's {PROBES_FILE}",
        )
    return AdapterPredicate(
        base=str(value["base"]),
        tree=str(value["tree"]),
        dataset=str(value["dataset"]),
        cutoff_ms=int(value["cutoff_ms"]),
        settings={str(k): str(v) for k, v in value["settings"].items()},
        code=str(value["code"]),
        metrics={str(k): str(v) for k, v in value["metrics"].items()},
        parent=None if value["parent"] is None else str(value["parent"]),
        energy_j=None if value["energy_j"] is None else str(value["energy_j"]),
        energy_estimated=bool(value["energy_estimated"]),
    )


def _read_probe(row: Any) -> GoldenProbe:
    prompt, answer = row["prompt"], row["adapter_text"]
    if not isinstance(prompt, str) or not isinstance(answer, str | None):
        raise TypeError("prompt or adapter_text")
    return GoldenProbe(prompt, answer)


def _refused_file(name: str, words: str) -> Refused:
    return Refused(f"adapter file {name} {words}", kind="adapter_file", field=name)


def _json(data: bytes, what: str) -> object:
    try:
        return json.loads(data)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as exc:
        raise Refused(f"adapter {what} is not JSON in UTF-8", kind="adapter_envelope", field=what) from exc


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Refused(f"adapter {what} is not an object", kind="adapter_envelope", field=what)
    return cast("dict[str, Any]", value)


def _expect(value: object, accepted: str, name: str) -> None:
    if value != accepted:
        raise Refused(f"adapter {name} is {str(value)[:80]!r}", kind="adapter_statement", field=name, accepted=accepted)
