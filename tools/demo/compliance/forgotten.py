"""A person asks to be forgotten: a legal hold stands against it, then it falls, and nothing opens that person's texts any more."""

import json
import shutil
from pathlib import Path
from typing import Any

from schemas.errors import Unavailable
from tools.demo.compliance.gated import apply_tenant, request_id, submit
from tools.demo.compliance.kafka import rows
from tools.demo.compliance.story import ASKED, CARD, HOLD, OUTSIDE, PATIENT, TENANT, Asks
from tools.demo.compliance.telling import Said, Tale

LATER = Asks("later", "the same person, later", "Do I have to bring anything?", arm=OUTSIDE, subject=PATIENT)
SEEN_S = 30


def access(tale: Tale, name: str) -> tuple[Said, Path]:
    """What the clinic holds of the patient, in a fresh folder."""
    out = tale.folder / name
    shutil.rmtree(out, ignore_errors=True)
    return tale.ratchet("access", PATIENT, "--tenant", TENANT, "--out", str(out)), out


def forgetting(tale: Tale) -> None:
    """From what is held of a person to its end."""
    before, folder = access(tale, "access-before")
    texts = _texts(folder)
    tale.claim(
        "the patient gets what is held of them, the texts opened", before.code == 0 and CARD in texts, _many(before)
    )
    erase = ("erase", PATIENT, "--tenant", TENANT, "--yes", "--reason", "asked by the patient")
    kept = tale.ratchet(*erase, quiet=True)
    held = kept.code == 1 and HOLD in json.dumps(kept.row)
    tale.claim("a legal hold stands against the erasure", held, ", ".join(kept.row.get("holds", ())))
    tale.claim("the court lifts it: the clinic's configuration says so", apply_tenant(tale, held=False).code == 0)
    erased = tale.ratchet(*erase)
    receipt: dict[str, Any] = erased.row
    subject = str(receipt.get("subject", ""))
    tale.claim(
        "the patient is erased, with a receipt",
        erased.code == 0 and bool(subject),
        f"holds from {receipt.get('effective_at', '?')}",
    )
    again = tale.ratchet(*erase)
    tale.claim("a second time changes nothing", again.code == 0 and again.row.get("changed") is False)
    _forgotten(tale)
    _later(tale, subject)
    tale.kept["erasure"] = {
        name: receipt.get(name) for name in ("subject", "receipt", "effective_at", "keys", "epoch", "horizons")
    }


def _forgotten(tale: Tale) -> None:
    """`access` has the entries still, and says of the texts that they are erased."""
    found: list[Said] = []
    places: list[Path] = []

    def told() -> bool:
        said, out = access(tale, "access-after")
        found[:], places[:] = [said], [out]
        return bool(said.row.get("erased"))

    try:
        tale.until(told, SEEN_S, "the log does not know of the erasure")
    except Unavailable as fault:
        tale.claim("what is held of the patient now says that the texts are erased", False, str(fault))
        return
    texts: dict[str, Any] = found[0].row["texts"]
    closed = texts["opened"] == 0 and texts["erased"] > 0 and CARD not in _texts(places[0])
    seen = f"{_many(found[0])}, {texts['opened']} texts opened, {texts['erased']} erased"
    tale.claim("what is held of the patient now says that the texts are erased", closed, seen)


def _later(tale: Tale, subject: str) -> None:
    """A later request of the same person is nothing new to the erasure: it has a key of its own, of a later epoch."""
    told = submit(tale, (LATER,), "later")
    answered = told.get(request_id(tale, LATER.name), {}).get("outcome") == "released"

    def epochs() -> list[int]:
        return sorted(
            {
                int(row["data"]["epoch"])
                for row in rows(tale.stage, "keyring", "key.wrapped")
                if row["key"].endswith(subject)
            }
        )

    tale.until(lambda: epochs()[-1:] > [1], SEEN_S, "no key of a later epoch was made")
    tale.claim("a later request of the same person is answered, under a new key", answered, f"epochs {epochs()}")


def _texts(folder: Path) -> str:
    """All that a folder holds, as text."""
    return "\n".join(
        path.read_text(encoding="utf-8", errors="replace") for path in sorted(folder.rglob("*")) if path.is_file()
    )


def _many(said: Said) -> str:
    return f"{len(said.row.get('entries', ()))} entries of {len(said.row.get('requests', ()))} requests"


def explaining(tale: Tale) -> None:
    """Why a request was denied, and why another was answered as it was, from the log alone."""
    denied = next(one for one in ASKED if one.rule == "soc2-cc6.7")
    said = tale.ratchet("explain", request_id(tale, denied.name))
    words = json.dumps(said.row, ensure_ascii=False)
    tale.claim(
        "why a request was denied is told by rule", said.code == 0 and denied.rule in words and denied.text not in words
    )
    masked = next(one for one in ASKED if one.name == "card")
    said = tale.ratchet("explain", request_id(tale, masked.name))
    words = json.dumps(said.row, ensure_ascii=False)
    tale.claim("and what another was masked for", said.code == 0 and "soc2-c1.1" in words and CARD not in words)
