"""A person's records as they were, where their keys can be opened from here. The log commits to them and does not hold them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agents.evidence.keyring import Keyring
from agents.evidence.keytable import wanted_of
from agents.evidence.payloads import Payloads
from agents.evidence.snapshot import Say
from infra.clock import SystemClock
from schemas.errors import Refused, SubjectErased, Unavailable
from tools.cli import evidence
from tools.cli.place import privacy_settings

READER = "privacy"  # the Kafka user that may read the keyring; the operator may not


@dataclass(slots=True)
class Texts:
    """`opened`: records by their entry's index. `erased`, `gone`: entries whose record nobody opens any more, or is kept no longer.

    `why`: what kept the rest closed; empty where all was tried.
    """

    opened: dict[int, bytes] = field(default_factory=dict[int, bytes])
    erased: list[int] = field(default_factory=list[int])
    gone: list[int] = field(default_factory=list[int])
    why: str = ""

    def as_json(self) -> dict[str, Any]:
        return {"opened": len(self.opened), "erased": len(self.erased), "not_kept": len(self.gone), "why": self.why}


async def open_texts(folder: Path, found: Mapping[int, Mapping[str, Any]], say: Say) -> Texts:
    """The records that these entries of the log in `folder` are of. Raises nothing: what could not be opened is said.

    Needs the keyring, which the log's own Kafka user may read, and in Vault the right to decrypt with the tenant's key.
    """
    texts = Texts()
    try:
        await _open(texts, folder, {index: entry for index, entry in found.items() if wanted_of(entry)}, say)
    except (Unavailable, Refused) as fault:
        texts.why = str(fault)
    return texts


async def _open(texts: Texts, folder: Path, found: Mapping[int, Mapping[str, Any]], say: Say) -> None:
    from agents.wiring import open_kek
    from infra.secrets import open_secrets

    stack = privacy_settings()
    broker = await evidence.open_broker(stack, user=READER)
    secrets = await open_secrets(stack, lambda _: None)
    keyring = Keyring(broker, await open_kek(stack, secrets), SystemClock())
    try:
        payloads = Payloads(folder, keyring)
        for number, (index, entry) in enumerate(found.items()):
            say(f"opening record {number + 1:,} of {len(found):,}")
            try:
                texts.opened[index] = await payloads.open(index, entry)
            except SubjectErased:
                texts.erased.append(index)
            except Refused as fault:
                if fault.kind not in ("no-payload", "no-key"):
                    raise
                texts.gone.append(index)
    finally:
        await keyring.stop()
        await secrets.close()
