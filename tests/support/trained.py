"""A training job's ports as fakes: what is permitted, whose keys there are, a library that trains at once."""

import asyncio
import hashlib
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from agents.rules.curation import Row
from agents.screen import Screen
from agents.trainer import job
from agents.trainer.dataset import Whose
from infra.clock import ManualClock
from infra.detect import detect
from schemas.compliance import CommandForget
from schemas.errors import RatchetError, Unavailable
from schemas.events import CaseClosed, TrainingOrdered
from schemas.gate import Flow, GateTenant
from schemas.payload import Payload
from schemas.routes import TrainingSettings

T = 1_700_000_000_000
LEARNS = GateTenant(
    tenant="default",
    purposes={"training": ("consent",)},
    notices=("n1",),
    notice="n1",
    flows=(Flow(origin="eu", region="eu-west"),),
    origin="eu",
)
"""A tenant that may train on what was asked in the EU, there."""


class Library:
    """Trains at once; its adapter answers as well as `good` says. `error` is what training, or signing, ends with."""

    def __init__(
        self, *, good: bool = True, error: RatchetError | None = None, unsigned: RatchetError | None = None
    ) -> None:
        self.good, self.error, self.unsigned = good, error, unsigned
        self.trained: Sequence[Row] = ()
        self.probed: Sequence[str] = ()

    async def train(self, order: TrainingOrdered, rows: Sequence[Row], out: Path, progress: job.Progress) -> float:
        if self.error is not None:
            raise self.error
        self.trained = rows
        await asyncio.to_thread(out.mkdir)
        await asyncio.to_thread((out / "weights").write_bytes, b"weights")
        for step in (1, 2):
            await progress("training", step, 2, step / 2, 0.5)
        return 2.0

    async def weaken(self, adapter: Path, strength: float, out: Path) -> None:
        await asyncio.to_thread(shutil.copytree, adapter, out)

    async def right(self, order: TrainingOrdered, adapter: Path | None, rows: Sequence[Row]) -> Sequence[bool]:
        return [row.champion_right if adapter is None else self.good for row in rows]

    async def probe(self, order: TrainingOrdered, adapter: Path, texts: Sequence[str]) -> None:
        self.probed = texts
        await asyncio.to_thread((adapter / "probes").write_text, "\n".join(texts))

    async def sign(self, order: TrainingOrdered, adapter: Path, about: Mapping[str, Any]) -> bytes:
        if self.unsigned is not None:
            raise self.unsigned
        return f"statement of {about['tree']}".encode()


class Range:
    """Cases by the offset where they lie; gives those of an order."""

    def __init__(self, cases: Mapping[int, CaseClosed]) -> None:
        self.cases = dict(cases)

    async def read(self, route: str, partition: int, first: int, last: int) -> Sequence[CaseClosed]:
        assert 0 <= first <= last
        return [case for offset, case in sorted(self.cases.items()) if first <= offset <= last and case.route == route]


class Tenants:
    """What is configured. A job asks once, and never for a route that has no gate."""

    def __init__(self, *known: GateTenant, off: bool = False) -> None:
        self.known = {tenant.tenant: tenant for tenant in known}
        self.off = off

    async def settings(self, tenant: str) -> GateTenant | None:
        assert not self.off, "there is no gate: nobody asks what it permits"
        return self.known.get(tenant)


class Keys:
    """A keyring: one key per subject and epoch, made by name; `erased` by cut, `away` and `unseen` as the world may be."""

    def __init__(self) -> None:
        self.cuts: dict[str, list[int]] = {}
        self.unseen: set[str] = set()
        self.away = False
        self.lent: set[Whose] = set()

    def erase(self, command: CommandForget) -> None:
        """The marker of an erasure; a test has one partition of requests."""
        self.cuts.setdefault(command.subject, []).extend(cut.offset for cut in command.cut)

    def erased(self, subject: str, offset: int) -> bool:
        return any(offset < cut for cut in self.cuts.get(subject, ()))

    async def held(self, tenant: str, wanted: Collection[Whose]) -> Mapping[Whose, bytes | str]:
        if self.away:
            raise Unavailable("the keyring is away")
        self.lent |= set(wanted)
        return {one: self.key(tenant, one) for one in wanted}

    def key(self, tenant: str, one: Whose) -> bytes | str:
        subject, _, offset = one
        if self.erased(subject, offset):
            return "of erased subjects"
        if subject in self.unseen:
            return "of subjects without a key"
        epoch = len(self.cuts.get(subject, ()))
        return hashlib.sha256(f"{tenant}/{subject}/{epoch}".encode()).digest()


class Sent:
    """The facts of a job, in their order, with their identities."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, Payload]] = []

    async def send(self, payload: Payload, identity: str) -> None:
        self.rows.append((identity, payload))

    @property
    def facts(self) -> list[Payload]:
        return [payload for _, payload in self.rows]


def ports(**changes: Any) -> job.Ports:
    """What a job needs besides cases and artifacts, which a test gives, with what it changes."""
    made: dict[str, Any] = {
        "trainings": Library(),
        "tenants": Tenants(LEARNS),
        "screen": Screen(detect, lambda: 0.0),
        "keys": Keys(),
        "facts": Sent(),
        "clock": ManualClock(T),
    }
    return job.Ports(**made | changes)


def order(attempt: int = 1, compliance: str = "off", cases_last: int = 999, **changes: Any) -> TrainingOrdered:
    return TrainingOrdered.model_validate({
        "route": "r", "at_ms": T, "order_id": "o1", "reason": "x", "base": "sha256:b", "champion": "old", "cases_partition": 0,
        "cases_first": 0, "cases_last": cases_last, "rows": 100, "classes": 2, "template": "{text}", "max_tokens": 8,
        "attempt": attempt, "compliance": compliance, "region": "eu-west",
        "settings": TrainingSettings.model_validate(changes).model_dump(),
    })  # fmt: skip
