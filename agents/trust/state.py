"""What the ladder fold keeps of a route: a small record, and entries that are written only when they change.

| entry | what |
| --- | --- |
| `learner` | what learns the next scorer |
| `running`, `candidate` | a frozen scorer with its ladder and its map to probabilities |
| `running/03`, `candidate/03` | scores that a ladder will be cut from, 32 an entry, dropped once it is |
| `told/07` | the newest 1,024 cases by a short digest, and what was said of them |
| `wait/<time>/02` | cases until all that were assigned before them have closed: how long a verdict takes may depend on what it says |
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict

from agents.rules.detector import Detector
from agents.rules.wealth import Floats
from agents.trust.ladder import Rungs
from agents.trust.score import Learner, Platt, Scorer
from schemas.ids import short
from schemas.routes import TrustSettings
from streams.shapes import KeyState

CHUNK: Final = 32
TOLD_CHUNKS: Final = 32
SPAN_MS: Final = 10_000  # what waits goes on in steps of so much event time
MOST_WAITING: Final = 50_000
GRACE_MS: Final = 60_000  # `cases` closes a case at most so long after its window
RUNNING: Final = "running"
CANDIDATE: Final = "candidate"
LEARNER: Final = "learner"
Mode: TypeAlias = Literal["SHADOW", "ENFORCE", "GRANTED"]
Label: TypeAlias = Literal["right", "wrong", "none"]
_MARKS: Final[Mapping[Label, str]] = {"right": "1", "wrong": "0", "none": "-"}


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Version(Frozen):
    """One scorer with its ladder. `collected`: how many scores wait for the cut; `counted`: labels that its ladder took.

    `since`: how many cases had come when it was frozen; what came before may have fitted it, and never counts.
    """

    scorer: Scorer = Scorer()
    platt: Platt = Platt()
    since: int = 0
    collected: int = 0
    counted: int = 0
    rungs: Rungs | None = None

    def covers(self) -> int:
        """The loosest certified rung in per cent, 0 where none is."""
        return 0 if self.rungs is None else self.rungs.covers()


class Scores(Frozen):
    """Scores in the order they came, each with what was said of it: `1` right, `0` wrong, `-` nothing that counts."""

    z: Floats = ()
    said: str = ""


class Told(Frozen):
    """Cases that were taken, by digest, and a person's label of each (`1`, `0`; `-` no person's)."""

    ids: tuple[str, ...] = ()
    said: str = ""


class Row(Frozen):
    """A case that waits for its turn: turns come by (assigned_at, id), whatever the verdict took. `seq`: as which it came."""

    assigned_at_ms: int
    id: str
    seq: int
    signals: Floats
    said: Label

    def turn(self) -> tuple[int, str]:
        return self.assigned_at_ms, self.id


class Part(Frozen):
    """One entry. Exactly one field is set."""

    waiting: tuple[Row, ...] | None = None

    version: Version | None = None
    learner: Learner | None = None
    scores: Scores | None = None
    told: Told | None = None


class Agreement(Frozen):
    """Two people's labels of the same answers, the first's first: kappa (Cohen 1960)."""

    both_right: int = 0
    first_only: int = 0
    second_only: int = 0
    both_wrong: int = 0

    @property
    def n(self) -> int:
        return self.both_right + self.first_only + self.second_only + self.both_wrong

    def add(self, *, first: bool, second: bool) -> "Agreement":
        """After one more pair: whether each called the answer right."""
        names = {(True, True): "both_right", (True, False): "first_only", (False, True): "second_only"}
        name = names.get((first, second), "both_wrong")
        return self.model_copy(update={name: getattr(self, name) + 1})

    def kappa(self) -> float | None:
        """Agreement beyond chance, at most 1; None where chance alone explains all or nothing was said."""
        n = self.n
        one, two = self.both_right + self.first_only, self.both_right + self.second_only
        chance = one * two + (n - one) * (n - two)
        return None if n * n == chance else (n * (self.both_right + self.both_wrong) - chance) / (n * n - chance)


class RouteTrust(Frozen):
    """The record of a route.

    `arm`: the champion that serves now, by its own events; `model`: a digest of how it is declared; `plain`: declared arms without an
    adapter. `number`: scorers so far. `since_ms`: labels from before do not count. `withdrawn`: only an operator may let answers out again.
    `waiting`: cases that wait for their turn, the first until `due_ms`; `passed_ms`: to where turns have come; `left_out`: came too late.
    """

    tenant: str
    version: int = 0
    champion: str
    arm: str
    model: str = ""
    plain: tuple[str, ...] = ()
    grader: str
    rubric: str = ""
    threshold: float
    immediate: bool = False
    gates: bool = True
    settings: TrustSettings = TrustSettings()
    mode: Mode = "SHADOW"
    rung: int = 0
    gate: bool = False
    withdrawn: bool = False
    drilled_ms: int | None = None
    granted_by: str = ""
    number: int = 1
    since_ms: int = 0
    unpublished: int = 0
    told: int = 0
    waiting: int = 0
    due_ms: int | None = None
    passed_ms: int = 0
    left_out: int = 0
    detector: Detector | None = None
    agreement: Agreement = Agreement()
    commands: tuple[str, ...] = ()


@dataclass(slots=True)
class Standing:
    """A route while one event is folded: what is known, and which entries change."""

    route: str
    record: RouteTrust
    entries: dict[str, Part]
    put: dict[str, Part] = field(default_factory=dict[str, Part])
    drop: list[str] = field(default_factory=list[str])

    @classmethod
    def of(cls, state: KeyState[RouteTrust, Part], record: RouteTrust) -> "Standing":
        return cls(state.key, record, dict(state.entries))

    # what is known

    @property
    def learner(self) -> Learner:
        part = self.entries.get(LEARNER)
        return Learner() if part is None or part.learner is None else part.learner

    @property
    def running(self) -> Version:
        return self.version(RUNNING) or Version()

    @property
    def candidate(self) -> Version | None:
        return self.version(CANDIDATE)

    def version(self, name: str) -> Version | None:
        part = self.entries.get(name)
        return None if part is None else part.version

    def said_of(self, request_id: str) -> str | None:
        """What is remembered of a case; None where nothing is."""
        name = short(request_id)
        for number in range(TOLD_CHUNKS):
            part = self.entries.get(f"told/{number:02d}")
            if part is not None and part.told is not None and name in part.told.ids:
                return part.told.said[part.told.ids.index(name)]
        return None

    # what changes

    def change(self, **fields: object) -> None:
        self.record = self.record.model_copy(update=fields)

    def write(self, name: str, part: Part) -> None:
        self.entries[name] = part
        self.put[name] = part
        if name in self.drop:
            self.drop.remove(name)

    def remove(self, name: str) -> None:
        if self.entries.pop(name, None) is not None:
            self.put.pop(name, None)
            self.drop.append(name)

    def remove_version(self, name: str) -> None:
        """The version, and what waited for its cut."""
        for entry in sorted(self.entries):
            if entry == name or entry.startswith(name + "/"):
                self.remove(entry)

    def remember(self, request_id: str, label: Label) -> None:
        """Keep a case's digest and a person's label; the oldest 32 go when there are more than 1,024."""
        place, said = self.record.told, _MARKS[label]
        name = f"told/{place // CHUNK % TOLD_CHUNKS:02d}"
        part = self.entries.get(name)
        told = Told() if part is None or part.told is None or place % CHUNK == 0 else part.told
        self.write(name, Part(told=Told(ids=(*told.ids, short(request_id)), said=told.said + said)))
        self.change(told=place + 1)

    def wait(self, row: Row, due_ms: int) -> None:
        """Keep a case until event time has reached `due_ms`: by then all that were assigned before it have closed.

        One that comes after its turn, or where 50,000 wait, is left out and counted.
        """
        record, step = self.record, due_ms // SPAN_MS
        end_ms = (step + 1) * SPAN_MS
        if end_ms <= record.passed_ms or record.waiting >= MOST_WAITING:
            self.change(left_out=record.left_out + 1)
            return
        number, rows = 0, tuple[Row, ...]()
        while (part := self.entries.get(f"wait/{step:014d}/{number:04d}")) is not None:
            rows = part.waiting or ()
            number += 1
        if rows and len(rows) < CHUNK:
            number -= 1
        else:
            rows = ()
        self.write(f"wait/{step:014d}/{number:04d}", Part(waiting=(*rows, row)))
        due = end_ms if record.due_ms is None else min(record.due_ms, end_ms)
        self.change(waiting=record.waiting + 1, due_ms=due)

    def turns(self, now_ms: int) -> list[Row]:
        """The cases whose turn has come, in order; they wait no longer."""
        steps = sorted(name for name in self.entries if name.startswith("wait/"))
        rows: list[Row] = []
        due_ms = None
        for name in steps:
            end_ms = (int(name.split("/")[1]) + 1) * SPAN_MS
            if end_ms > now_ms:
                due_ms = end_ms
                break
            rows += self.entries[name].waiting or ()
            self.remove(name)
        passed_ms = max(self.record.passed_ms, now_ms // SPAN_MS * SPAN_MS)
        self.change(waiting=self.record.waiting - len(rows), due_ms=due_ms, passed_ms=passed_ms)
        return sorted(rows, key=Row.turn)

    def forget_waiting(self) -> None:
        """Nothing of what waits will count."""
        for name in sorted(self.entries):
            if name.startswith("wait/"):
                self.remove(name)
        self.change(waiting=0, due_ms=None)

    def collect(self, name: str, version: Version, z: float, label: Label) -> Version:
        """Keep a score until the ladder is cut; cut it where there are enough."""
        entry = f"{name}/{version.collected // CHUNK:02d}"
        part = self.entries.get(entry)
        scores = Scores() if part is None or part.scores is None else part.scores
        self.write(entry, Part(scores=Scores(z=(*scores.z, z), said=scores.said + _MARKS[label])))
        version = version.model_copy(update={"collected": version.collected + 1})
        return self._cut(name, version) if version.collected >= self.record.settings.min_scores else version

    def _cut(self, name: str, version: Version) -> Version:
        """Cut the rungs from the scores alone, then count the labels that came with them.

        The answers above the m-th best score are, given that score, a sample of all above it whatever their labels are; so these labels
        may count, but not that of the answer at the threshold, nor any where several have just that score.
        """
        z: list[float] = []
        said = ""
        for entry in sorted(row for row in self.entries if row.startswith(name + "/")):
            scores = self.entries[entry].scores
            if scores is not None:
                z += scores.z
                said += scores.said
            self.remove(entry)
        rungs = Rungs.cut(z, self.record.settings.risk, self.record.settings.delta)
        alone = [z.count(tau) <= 1 for tau in rungs.tau]
        counted = 0
        for score, mark in zip(z, said, strict=True):
            if mark != "-":
                only = [one and score > tau for one, tau in zip(alone, rungs.tau, strict=True)]
                rungs, counted = rungs.add(score, right=mark == "1", only=only), counted + 1
        return version.model_copy(update={"rungs": rungs, "counted": counted})
