"""Published signatures against `schemas.tlog`: verifier keys, signed notes, cosignatures, checkpoints, proof files."""

import base64
import re
from collections.abc import Iterator, Sequence
from functools import partial

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from infra.notary import verify
from schemas.tlog import merkle, note
from schemas.tlog.proof import parse_proof
from schemas.tlog.strict import Malformed
from tools.bench.conformance_files import VKEY, Case, File, Folder, Node, faulted

_LINE = re.compile(r"^\u2014 (\S+) ", re.MULTILINE)
_SIGNED = re.compile(r"\n\n\u2014 [^\n]*\n(?:\u2014 [^\n]*\n)*\Z")
_CHECKPOINT = re.compile(r"[^\n]+\n[0-9]+\n[A-Za-z0-9+/=]{40,}\n")
_SECRET = re.compile(r"PRIVATE\+KEY\+([^\s+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/]+=*)")
_SIZES = ("n", "size", "treeSize", "tree_size")
_PROOF = "c2sp.org/tlog-proof@v1\n"
_KINDS = {note.ED25519: "notes", note.COSIGNER: "cosignatures"}


def opened(data: bytes, keys: Sequence[note.VerifierKey]) -> str:
    """The text of a note that one of `keys` signed. Raises Malformed, Untrusted."""
    return note.open_note(data, keys, verify)[0]


def vkeys(file: File, node: Node) -> Iterator[Case]:
    """Verifier keys in JSON: read and written alike, or refused where a name on the way says so. Other types are not ours."""
    if isinstance(node.value, str) and VKEY.fullmatch(node.value) is not None:
        kind = base64.b64decode(node.value.split("+", 2)[2][:4] + "==")[0]
        if kind in _KINDS or node.refused:
            fault = faulted(partial(_same_vkey, node.value), Malformed, refused=node.refused)
            yield Case("vkeys", f"{file.name} {node.value}", fault)


def _same_vkey(text: str) -> None:
    if str(note.parse_vkey(text)) != text:
        raise Malformed("it is written otherwise")


def notes(folder: Folder, file: File) -> Iterator[Case]:
    """Signed notes whose verifier key stands in the same document, its folder or the one above.

    In a JSON document with keys every note is judged; a text whose signers nobody names a key for is no vector.
    """
    own = file.keys()
    for number, (text, node) in enumerate(_texts(file)):
        if _SIGNED.search(text) is None or text.startswith((_PROOF, "old ")):  # a proof, what a witness is asked
            continue
        names = set(_LINE.findall(text[text.rindex("\n\n") :]))
        keys = [key for key in own or folder.keys_near(file.path.parent) if key.name in names]
        where = f"{file.name} note {number}"
        if not keys and own and node is not None:
            yield Case("notes", where, f"signed by {sorted(names)}, of whom no verifier key is given")
        for kind, family in _KINDS.items():
            mine = [key for key in keys if key.kind == kind]
            if mine:
                refused = node is not None and node.refused
                fault = faulted(partial(opened, text.encode(), mine), Malformed, note.Untrusted, refused=refused)
                yield Case(family, where, fault)
        yield from _signed_again(file, text, where)


def _signed_again(file: File, text: str, where: str) -> Iterator[Case]:
    """Where the document gives the (public) test key itself: our signature is the published one, byte for byte."""
    for secret in _SECRET.finditer(file.text or "") if file.document is not None else ():
        seed = base64.b64decode(secret[3])[1:]
        if len(seed) != 32 or f"\u2014 {secret[1]} " not in text:
            continue
        key = Ed25519PrivateKey.from_private_bytes(seed)
        body = text[: text.rindex("\n\n") + 1]
        line = note.sign_line(note.VerifierKey(secret[1], key.public_key().public_bytes_raw()), key.sign(body.encode()))
        yield Case("notes", f"{where} signed again", None if line in text else "our signature line is another")


def checkpoints(file: File) -> Iterator[Case]:
    """Texts of checkpoints: read and written alike, of the size that stands beside them."""
    for text, node in _texts(file):
        if _CHECKPOINT.fullmatch(text) is not None:
            refused = node is not None and node.refused
            fault = faulted(partial(_same_checkpoint, text, node), Malformed, refused=refused)
            yield Case("checkpoints", f"{file.name} {text.splitlines()[0]}", fault)


def _same_checkpoint(text: str, node: Node | None) -> None:
    read = note.parse_checkpoint(text)
    sizes = [node.beside[name] for name in _SIZES if name in node.beside] if node is not None else []
    if read.text != text or any(size != read.size for size in sizes):
        raise Malformed(f"read as size {read.size} and written otherwise")


def proofs(folder: Folder, file: File) -> Iterator[Case]:
    """Proof files: read and written alike, refused with `extra`; with their entry's file beside them also true."""
    for text, node in _texts(file):
        if not text.startswith(_PROOF) or "[...]" in text:  # an abbreviated example
            continue
        refused = "\nextra " in text or (node is not None and node.refused)
        fault = faulted(
            partial(_proves, folder, file, text),
            Malformed,
            note.Untrusted,
            merkle.ProofRefused,
            refused=refused,
        )
        yield Case("proofs", file.name, fault)


def _proves(folder: Folder, file: File, text: str) -> None:
    proof = parse_proof(text.encode())
    if proof.encode() != text.encode():
        raise Malformed("it is written otherwise")
    body, signatures = note.parse_note(proof.checkpoint)
    names = {line.name for line in signatures}
    keys = [key for key in folder.keys_near(file.path.parent) if key.name in names]
    if keys:
        opened(proof.checkpoint, keys)
    checkpoint = note.parse_checkpoint(body)
    for other in folder.beside(file.path.parent):
        if other is not file and other.path.stem == file.path.stem:
            leaf = merkle.leaf_hash(other.data)
            merkle.verify_inclusion(proof.index, checkpoint.size, leaf, proof.hashes, checkpoint.root)


def _texts(file: File) -> Iterator[tuple[str, Node | None]]:
    """The strings of a JSON document; of another text the whole and its fenced blocks."""
    if file.document is not None:
        yield from ((node.value, node) for node in file.nodes() if isinstance(node.value, str))
    else:
        yield from ((text, None) for text in file.passages())
