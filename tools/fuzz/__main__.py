"""Mutated records against the decoder and every agent.

`python -m tools.fuzz --records 1000000 --seed 1 [--json]`: each record is a real one of the repository's recorded logs, mutated by
dice that its number and the seed decide, and goes through the decoder (without and with proofs) and through whole agents. `--only N`
runs the N-th again alone. What crashes or is accepted wrongly is kept in a file of `--keep`. Exit codes: 0 none was found, 1 some
was, 2 used wrongly.
"""

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from random import Random  # noqa: TID251  the dice are seeded: a number of a seed is always the same mutant
from typing import Any

from schemas import principal
from schemas.codec import Encoded
from schemas.errors import Refused
from schemas.payload import REGISTRY, Payload
from schemas.principal import PROVEN, Credential, KeyTerm, Principal, Ring, Speaker
from schemas.topics import PREFIX
from streams.port import Outgoing
from streams.recorded import RecordedLog, read_file, write_file
from streams.shapes import Event, Record
from streams.wire import BROKER_BYTES, decode, size_of, speaker, valued
from tools.fuzz.mutate import PARTITIONS, mutant
from tools.fuzz.oracle import Oracle
from tools.fuzz.stand import Stand

DATA = Path(__file__).resolve().parents[2] / "tests" / "data" / "recorded"
CORPUS = ("loop.xz", "types.xz")
KEPT_MOST = 20
SHOW_EVERY = 50_000
SPEAKER, KID = "speaker", "k1"


@dataclass(frozen=True, slots=True)
class Found:
    """A record that crashed something, or was taken and should not have been."""

    number: int
    mutations: tuple[str, ...]
    place: str
    what: str
    file: str = ""


@dataclass(slots=True)
class Report:
    seed: int
    records: int = 0
    seconds: float = 0.0
    accepted: int = 0
    accepted_proven: int = 0
    refused: Counter[str] = field(default_factory=Counter[str])
    mutations: Counter[str] = field(default_factory=Counter[str])
    types: int = 0
    steps: dict[str, int] = field(default_factory=dict[str, int])
    emits: int = 0
    dead_letters: int = 0
    wrong: int = 0
    found: list[Found] = field(default_factory=list[Found])

    def said(self) -> dict[str, Any]:
        """As JSON."""
        rows: dict[str, Any] = {one.name: getattr(self, one.name) for one in fields(self)}
        return rows | {"found": [asdict(one) for one in self.found]}


class Corpus:
    """Real records by type, and the ring under which each that must be proven is proven."""

    def __init__(self, files: Iterable[Path]) -> None:
        self.log = RecordedLog(PARTITIONS)
        self.by_type: dict[str, list[Record]] = {}
        offsets: Counter[tuple[str, int]] = Counter()
        for file in files:
            for record in read_file(file).all():
                kind = dict(record.headers).get("ce_type", b"").decode()[len("ratchet.") : -len(".v1")]
                if kind in REGISTRY and record.topic == PREFIX + REGISTRY[kind].TOPIC:
                    at = (record.topic, record.partition)
                    own = replace(record, offset=offsets[at])
                    offsets[at] += 1
                    self.log.add((own,))
                    self.by_type.setdefault(kind, []).append(own)
        self.all = [record for kind in sorted(self.by_type) for record in self.by_type[kind]]
        self.kinds = sorted(self.by_type)
        key = bytes(range(32))
        term = KeyTerm(not_before_ms=1, not_after_ms=None, commitment=principal.commitment(key))
        roles = Principal(roles=("upstream", "reviewer", "operator"), keys={KID: term})
        speakers = {SPEAKER} | {name for record in self.all if (name := _speaker(record))}
        self.ring = Ring(dict.fromkeys(speakers, roles), {(name, KID): key for name in speakers})
        self._key = key

    def draw(self, dice: Random) -> Record:
        return dice.choice(self.by_type[dice.choice(self.kinds)])

    def proven(self, record: Record) -> Record:
        """The record with a proof, where it is one that needs one."""
        if record.topic not in PROVEN:
            return record
        row = Encoded(record.key or b"", record.value or b"", record.headers)
        made = Credential(_speaker(record) or SPEAKER, KID, self._key).prove(row, at_ms=record.timestamp_ms)
        return replace(record, headers=made.headers)

    def verify(self, record: Record) -> Speaker | None:
        return speaker(self.ring, record)


def _speaker(record: Record) -> str:
    """Who an event says that it is from."""
    if record.topic not in PROVEN or record.topic == PREFIX + "requests":
        return ""
    said = json.loads(record.value or b"{}")
    return str(said.get("by") or said.get("operator") or "")


class Fuzz:
    """One run. `keep`: the folder for offending records."""

    def __init__(self, corpus: Corpus, seed: int, keep: Path | None) -> None:
        self.corpus = corpus
        self.report = Report(seed, types=len(corpus.kinds))
        self._keep = keep
        self._oracle = Oracle(PARTITIONS)
        self._stand = Stand(corpus.log)

    async def run(self, numbers: Iterable[int], *, show: bool = False) -> Report:
        began = time.monotonic()
        report = self.report
        await self._stand.start()
        for number in numbers:
            await self._one(number)
            report.records += 1
            if show and report.records % SHOW_EVERY == 0:
                spent_s = time.monotonic() - began
                print(f"{report.records} records, {spent_s:.0f} s, {report.wrong} wrong", file=sys.stderr, flush=True)
        report.seconds = round(time.monotonic() - began, 1)
        report.steps = dict(sorted(self._stand.steps.items()))
        report.emits, report.dead_letters = self._stand.emits, self._stand.letters
        return report

    async def _one(self, number: int) -> None:
        dice = Random(f"{self.report.seed}/{number}")  # noqa: S311  no secret
        whole = self.corpus.proven(self.corpus.draw(dice))
        names, record = mutant(dice, whole, self.corpus.all)
        record = _fitting(replace(record, offset=1_000_000 + number, headers=valued(record.headers)))
        self.report.mutations.update(names)
        try:
            what = None if record.topic.endswith(".deferred") else self._decoded(record, whole)
            if what is None:
                await self._stand.take(record)
        except Exception as error:  # noqa: BLE001  whatever it is: it would have crashed an agent
            what = f"{type(error).__name__}: {str(error)[:300]} ({_where(error)})"
        if what is not None:
            self.report.wrong += 1
            if len(self.report.found) < KEPT_MOST:
                self.report.found.append(Found(number, names, str(record.place), what, self._kept(number, record)))

    def _decoded(self, record: Record, whole: Record) -> str | None:
        """Through the decoder twice. The second time the proof counts."""
        said = self._try(record, proof=False)
        if isinstance(said, Event):
            self.report.accepted += 1
            fault = self._oracle.wrong(record, said)
        else:
            self.report.refused[said.kind] += 1
            fault = self._oracle.badly_refused(record, said)
        proven = self._try(record, proof=True)
        if isinstance(proven, Event):
            self.report.accepted_proven += 1
            fault = fault or (f"refused as {said}, accepted with its proof" if isinstance(said, Refused) else None)
            # the ring holds from its first key on; what lies before is taken unproven
            asked = record.topic in PROVEN and record.timestamp_ms >= 1
            fault = fault or self._oracle.unproven(record, whole, asked)
        else:
            fault = fault or self._oracle.badly_refused(record, proven)
        return fault

    def _try(self, record: Record, *, proof: bool) -> "Event[Payload] | Refused":
        try:
            return decode(record, PARTITIONS, self.corpus.verify if proof else None)
        except Refused as error:
            return error

    def _kept(self, number: int, record: Record) -> str:
        if self._keep is None:
            return ""
        self._keep.mkdir(parents=True, exist_ok=True)
        file = self._keep / f"{self.report.seed}-{number}.xz"
        file.unlink(missing_ok=True)
        log = RecordedLog(PARTITIONS)
        log.add((record,))
        write_file(log, file)
        return str(file)


def _fitting(record: Record) -> Record:
    """The record, cut to what a broker takes."""
    over = size_of(Outgoing(record.key, record.value, record.headers)) - BROKER_BYTES
    if over <= 0:
        return record
    value = record.value or b""
    return replace(record, value=value[:-over], headers=record.headers if over < len(value) else ())


def _where(error: BaseException) -> str:
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    return "" if at is None else f"{Path(at.tb_frame.f_code.co_filename).name}:{at.tb_lineno}"


def fuzz(seed: int, numbers: Iterable[int], *, keep: Path | None = None, show: bool = False) -> Report:
    """Run these numbers of a seed."""
    corpus = Corpus(DATA / name for name in CORPUS)
    return asyncio.run(Fuzz(corpus, seed, keep).run(numbers, show=show))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description=__doc__)
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="run one number of the seed alone")
    parser.add_argument("--keep", type=Path, default=Path("build/fuzz"), help="where offending records are kept")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    if chosen.records < 1 or (chosen.only is not None and chosen.only < 0):
        parser.error("--records takes a number from 1, --only one from 0")
    numbers = range(chosen.records) if chosen.only is None else (chosen.only,)
    report = fuzz(chosen.seed, numbers, keep=chosen.keep, show=not chosen.json)
    if chosen.json:
        print(json.dumps(report.said(), indent=2))
    else:
        print(f"{report.records} mutated records of {report.types} types, seed {report.seed}: {report.seconds} s")
        print(f"accepted {report.accepted}, with a proof {report.accepted_proven}, refused {report.refused.total()}; agents took "
              f"{sum(report.steps.values())}, gave {report.emits} events and {report.dead_letters} dead letters")  # fmt: skip
        for one in report.found:
            print(f"#{one.number} {one.place} {'+'.join(one.mutations)}: {one.what}; {one.file}")
        print(f"crashed or accepted wrongly: {report.wrong}")
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
