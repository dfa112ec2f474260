"""The composition for replay: each agent with its parts replaced by what the log recorded. Nothing here reaches a server.

Folds need nothing but their inputs. What router and trust ask outside their inputs is taken as recorded, and named here:

* the clock: `at_ms` of the recorded output (the value that most of its times agree on);
* policies: the versions that the recorded output names, out of `ratchet.policies`;
* the store's ids seen before: rebuilt from the requests as they are replayed; where it had lost them, that is counted;
* which of two requests with one id came first to the store: one lane decides many side by side, so it may be the later;
* quota, ledger and the cache's answer: as the decision, or the refusal, says (`routing.observed`, `cached`, `retry_after_ms`);
* a session's arm: `session_arm` as the decision observed it, checked against the arms that the session was ever given (decisions of
  one session on several partitions run side by side: no log orders their reads);
* whether the store answered: `store_seen`;
* how a scan of the gate ended: `gate.scan`; what detectors find is found again;
* the tenant's key: where it is not at hand, the pseudonyms of session and subject as the decision names them;
* the gate's keys: which of them sealed and marked; where that one was retired, or none is at hand, sealed maps, a mark's binding and
  the values that were put back (`agents.trust.recalled`);
* whether a principal's proof held (keys come and go), whether the world was away too long, and an operator's `skip`.

Results and a judge model's verdicts come from the log: inference, jobs and the grader are not replayed.
"""

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any, cast

from agents.router.actor import RESULTS, SEEN_S, SESSION_S, Gatekeeper, Router, keyed
from agents.router.around import Asked
from agents.router.observed import NEVER, Hit, Like
from agents.rules.gate_seen import Word, again
from agents.rules.masking import MaskMap
from agents.screen import Screen
from agents.trust.actor import AWAY, NOT_OUT, Trust
from agents.trust.recalled import AsRecorded, RecalledKeys
from agents.wiring import FOLDS, groups
from infra.detect import detect, named
from infra.sealing import GateKeys, map_key
from schemas.errors import Refused, Unavailable
from schemas.events import CachedAnswer, DecisionRouted, Noticed
from schemas.export import SENDERS
from schemas.gate import Scan
from schemas.payload import REGISTRY
from schemas.policies import PolicyRef, PolicyRoute, PolicyRouter
from schemas.routes import Route
from schemas.topics import PREFIX, dlq_of, order_topic, state_topic
from streams.difference import Difference, Field, Rederived, is_letter, written_by
from streams.recorded import RecordedLog, scratch
from streams.replay import Artifact, StillClock, Told, Window, redecide, refold, where_to_begin
from streams.shapes import Event, P, Place, Record, Transform
from streams.wire import decode

TRANSFORMS = ("router", "trust")
AGENTS = (*TRANSFORMS, *FOLDS)
POLICIES = PREFIX + "policies"
GONE = "policies named that the log no longer holds: not decided again"
UNKNOWN = "duplicates of what lies before the log's beginning: not decided again"
LOST = "ids decided again, for the store had lost them"
RACED = "requests with one id side by side: the later came first, as recorded"
SIDE_BY_SIDE_MS = 60_000
ABSENT_PSEUDONYM = "0" * 32
ABSENT_MAP = "absent"
SEALED = "maps of placeholders, which only the gate's key seals: taken as recorded"
SKEW_MS = 1000  # between the clocks of two routers


def inputs_of(agent: str) -> tuple[str, ...]:
    """All topics that an agent takes records from."""
    return groups()[f"ratchet.{agent}"]


def outputs_of(agent: str) -> tuple[str, ...]:
    """All topics that an agent writes to, dead letters included, its state and order not."""
    own = {PREFIX + REGISTRY[name].TOPIC for name in SENDERS[agent]}
    return (*sorted(own), *(dlq_of(topic) for topic in inputs_of(agent) if not topic.endswith(".deferred")))


def first_topics(agents: Collection[str]) -> tuple[str, ...]:
    """Topics that say how far agents have come: to be read before all others."""
    return tuple(order_topic(agent) for agent in AGENTS if agent in FOLDS and agent in agents)


def other_topics(agents: Collection[str]) -> tuple[str, ...]:
    """What else a replay of these agents reads."""
    found = {POLICIES} if set(agents) & set(TRANSFORMS) else set[str]()
    found |= {RESULTS} if "router" in agents else set()
    for agent in agents:
        found |= {*inputs_of(agent), *outputs_of(agent)}
        if agent in FOLDS:
            found.add(state_topic(agent))
    return tuple(sorted(found))


def offset_groups(agents: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Groups of the Transforms among them, with what they read."""
    return {f"ratchet.{agent}": inputs_of(agent) for agent in TRANSFORMS if agent in agents}


def keep(agents: Collection[str]) -> Callable[[Record], bool]:
    """Whether a record is needed for a replay of these agents: inputs and policies whole, of other topics their own outputs."""
    whole = {POLICIES, *first_topics(agents), *(topic for agent in agents for topic in inputs_of(agent))}
    whole |= {RESULTS} if "router" in agents else set()
    whole |= {state_topic(agent) for agent in agents if agent in FOLDS}
    return lambda record: record.topic in whole or written_by(record) in agents


def snapshots(log: RecordedLog) -> tuple[str, ...]:
    """Digests of the snapshots that a replay of the whole log begins from."""
    found = (
        where_to_begin(log, agent, inputs_of(agent), number)[1] for agent in FOLDS for number in range(log.partitions)
    )
    return tuple(sorted({taken.digest for taken in found if taken is not None}))


def models(log: RecordedLog) -> tuple[str, ...]:
    """Digests of what the router's decisions were computed with: factors of the learner's policies, text bases of routes."""
    found = set[str]()
    for row in log.topic(POLICIES):
        kind = (row.key or b"").partition(b"/")[0]
        if row.value is None or kind not in (b"router", b"route"):
            continue
        try:
            said = decode(row, log.partitions).data
        except Refused:
            continue
        if isinstance(said, PolicyRouter):
            found |= {said.factors, said.basis}
        elif isinstance(said, PolicyRoute):
            found.add(said.settings.routing.basis)
    return tuple(sorted(found - {""}))


async def replay(
    agent: str,
    log: RecordedLog,
    window: Window,
    *,
    key_of: Callable[[str], bytes] | None = None,
    gate_keys: GateKeys | None = None,
    artifact: Artifact | None = None,
    told: Told,
) -> Rederived:
    """One agent again. `key_of`: the tenants' keys for pseudonyms, `gate_keys`: for maps and marks; None where they are not at hand.
    `artifact`: where snapshots are.
    """

    def held(digest: str) -> bytes:
        if digest in log.artifacts:
            return log.artifacts[digest]
        if artifact is None:
            raise Refused(f"the artifact {digest} is not at hand: neither in the log nor on this machine", kind="cut")
        return artifact(digest)

    if agent in FOLDS:
        return await refold(FOLDS[agent](), log, window, artifact=held, told=told)
    policies = Policies(log)
    recalling = (
        RouterRecall(log, policies, key_of, gate_keys, held)
        if agent == "router"
        else TrustRecall(log, policies, gate_keys)
    )
    return await redecide(recalling, log, window, told=told)


class Policies:
    """Every policy that the log holds, and the view that holds just those that were named."""

    def __init__(self, log: RecordedLog) -> None:
        self._held: dict[str, list[Event[Any]]] = {}
        self._events: dict[str, Event[Any]] = {}
        for record in log.topic(POLICIES):
            try:
                event = decode(record, log.partitions)
            except Refused:
                continue  # the running view leaves it out too
            self._held.setdefault(event.key, []).append(event)

    def name(self, refs: Sequence[PolicyRef], at_ms: int) -> bool:
        """Hold what these references name; False where a named version is older than all that is kept of it.

        What the log has never held under a reference is taken from the time: the difference then shows.
        """
        self._events = {}
        for ref in refs:
            key = f"{ref.kind}/{ref.name}"
            held = self._held.get(key, [])
            exact = [row for row in held if row.id == ref.id and row.data.version == ref.version]
            if exact:
                self._events[key] = exact[-1]
            elif held and ref.version < held[0].data.version and held[0].data.version > 1:
                return False
            else:
                self._put(key, at_ms)
        return True

    def as_of(self, at_ms: int) -> None:
        """Hold what was written by then: for an event of which nothing says what was known."""
        self._events = {}
        for key in self._held:
            self._put(key, at_ms)

    def _put(self, key: str, at_ms: int) -> None:
        rows = [row for row in self._held.get(key, ()) if row.record.timestamp_ms <= at_ms]
        if rows:
            self._events[key] = rows[-1]

    def get(self, model: type[P], key: str) -> Event[P] | None:
        found = self._events.get(key)
        if found is not None and not isinstance(found.data, model):
            raise TypeError(f"{POLICIES}: {key!r} is a {type(found.data).__name__}, not a {model.__name__}")
        return found

    def items(self, model: type[P]) -> Mapping[str, Event[P]]:
        return {key: self._events[key] for key in sorted(self._events) if isinstance(self._events[key].data, model)}

    def age_s(self) -> float:
        return 0.0


def payloads(recorded: Sequence[Record]) -> list[dict[str, Any]]:
    """The values of recorded outputs that are JSON objects, dead letters not."""
    found: list[dict[str, Any]] = []
    for row in recorded:
        if not is_letter(row.topic):
            try:
                said = cast("object", json.loads(row.value or b""))
            except ValueError:
                continue
            if isinstance(said, dict):
                found.append(cast("dict[str, Any]", said))
    return found


def time_of(recorded: Sequence[Record], otherwise_ms: int) -> int:
    """When the outputs of one event were decided: what most of their times say, the first of them where they are even."""
    times: list[int] = []
    for said in payloads(recorded):
        names = (
            ("at_ms", "assigned_at_ms") if "store_seen" in said else ("at_ms",)
        )  # a decision assigns when it is made
        times += [said[name] for name in names if isinstance(said.get(name), int)]
    for row in recorded:
        headers = dict(row.headers)
        text = headers.get("ratchet-dlq-at") if is_letter(row.topic) else headers.get("ce_time")
        try:
            times.append(round(datetime.fromisoformat((text or b"").decode()).timestamp() * 1000))
        except ValueError:
            continue
    return max(times, key=times.count) if times else otherwise_ms


class ScreenAgain(Screen):
    """What detectors find in a text is found again; that a scan did not end well, or in time, is taken as recorded."""

    def __init__(self) -> None:
        super().__init__(detect, lambda: 0.0, named)
        self.ended: Word = "whole"

    async def scan(
        self, texts: Sequence[str], *, most_characters: int, budget_us: int, names: str | None = None
    ) -> Scan:
        found = await super().scan(texts, most_characters=most_characters, budget_us=budget_us, names=names)
        return again(self.ended, found, budget_us)


class Recalling:
    """What router and trust have in common: clock, policies and the end of a scan as they were."""

    transform: Transform

    def __init__(self, log: RecordedLog, policies: Policies) -> None:
        self.clock = StillClock()
        self.screen = ScreenAgain()
        self.notes: Counter[str] = Counter()
        self._policies = policies

    def recall(self, record: Record, recorded: Sequence[Record]) -> str | None:
        self.clock.at_ms = time_of(recorded, record.timestamp_ms)
        told = payloads(recorded)
        gates = (said["gate"] for said in told if isinstance(said.get("gate"), dict))
        self.screen.ended = next((gate["scan"] for gate in gates if gate.get("scan") in ("failed", "late")), "whole")
        if not told:
            self._policies.as_of(self.clock.at_ms)
            return None
        try:
            named = next(
                (said["policies"] for said in told if said.get("policies")), ()
            )  # an answer leaves it to its score
            refs = [PolicyRef.model_validate(row) for row in named]
        except (ValueError, TypeError):
            refs = []  # damaged: the difference will show
        return None if self._policies.name(refs, self.clock.at_ms) else GONE

    def otherwise(self, record: Record, recorded: Sequence[Record]) -> str | None:
        return None

    def ended(self, gave: Rederived) -> None:
        gave.notes.update(self.notes)


class TrustRecall(Recalling):
    """Trust keeps nothing: clock, policies, how scans ended, which key marked, where a key is not at hand what it gave, and that one
    could not be looked up."""

    def __init__(self, log: RecordedLog, policies: Policies, keys: GateKeys | None) -> None:
        super().__init__(log, policies)
        recalled = RecalledKeys(keys, map_key)
        trust = Trust(policies, self.clock, self.screen, recalled, learn=self._learn)
        self.transform = self._trust = AsRecorded(trust, recalled, self.notes)
        self._away: str | None = None

    async def _learn(self, sealed: str) -> None:
        if self._away is not None:
            raise Unavailable(self._away)

    def recall(self, record: Record, recorded: Sequence[Record]) -> str | None:
        self._trust.recall(payloads(recorded))
        letters = (dict(row.headers) for row in recorded if is_letter(row.topic))
        away = (said for said in letters if said.get("ratchet-dlq-kind") == AWAY.encode())
        said = next((said.get("ratchet-dlq-message", b"").decode("utf-8", "replace") for said in away), None)
        self._away = None if said is None else said.removeprefix(NOT_OUT)
        return super().recall(record, recorded)


class RouterRecall(Recalling):
    """The router, with the store and the pseudonyms that it had."""

    def __init__(
        self,
        log: RecordedLog,
        policies: Policies,
        key_of: Callable[[str], bytes] | None,
        gate_keys: GateKeys | None,
        artifact: Artifact,
    ) -> None:
        super().__init__(log, policies)
        self._log = log
        self._gate_keys = gate_keys
        self._map = ""
        self._store = Remembered(self.clock)
        self._known = key_of is not None
        self._pseudonyms: dict[str, str | None] = {}
        self._given = scratch()
        self._given.execute("CREATE TABLE given (route TEXT, session TEXT, at_ms INT, place TEXT, arm TEXT, kept TEXT)")
        self._around = RecordedAround()
        self.transform = Router(
            policies,
            self._store,
            self._around,
            Lying(log),
            self.clock,
            key_of or (lambda tenant: b""),
            keyed=self._keyed,
            artifact=artifact,
            gatekeeper=Gatekeeper(self.screen, self._sealed),
        )
        self._begins_ms = {
            tp: begins for tp in log.starts if log.start(tp) > 0 and (begins := log.begins_ms(tp)) is not None
        }

    def _keyed(self, key: bytes, label: str, text: str) -> str:
        """Where the key is unknown: what the decision said; for digests, which only meet each other, any key does."""
        if self._known or label == "content":
            return keyed(key, label, text)
        return self._pseudonyms.get(label) or ABSENT_PSEUDONYM

    def _sealed(self, tenant: str, request_id: str, event_id: str, found: MaskMap, at_ms: int) -> str:
        """By the key that sealed the decision's own. Where that is away the decision's own, so that whether there is one is compared,
        and not what it holds."""
        keys, key_id = self._gate_keys, map_key(self._map)
        if keys is not None and not (self._map and key_id in keys.retired):
            at_ms = key_id if self._map and key_id in keys else at_ms
            return keys.seal_map(tenant, request_id, event_id, found, at_ms)
        self.notes[SEALED] += 1
        return self._map or ABSENT_MAP

    def recall(self, record: Record, recorded: Sequence[Record]) -> str | None:
        why = super().recall(record, recorded)
        told = payloads(recorded)
        decision = next((said for said in told if "store_seen" in said), None)
        refused = next((said for said in told if "accepted" in said), None)
        self._around.recall(decision, refused if refused is not None and refused.get("kind") == "quota" else None)
        self._store.away = decision is not None and decision.get("store_seen") is False
        self._store.arm = None if decision is None else decision.get("session_arm")
        self._store.lost, self._store.first = False, None
        self._map = "" if decision is None else str(decision.get("mask_map") or "")
        self._pseudonyms = {name: (decision or refused or {}).get(name) for name in ("session", "subject")}
        self._pseudonyms["request"] = None if refused is None else refused.get("request_id")
        if self._store.away:
            self.notes["decisions made while the store was away"] += 1
        if decision is not None and decision.get("session"):
            said = (str(decision[name]) for name in ("route", "session"))
            row = (
                *said,
                self.clock.at_ms,
                str(record.place),
                str(decision.get("arm")),
                decision.get("session_arm") or "",
            )
            self._given.execute("INSERT INTO given VALUES (?, ?, ?, ?, ?, ?)", row)
        return why or (UNKNOWN if self._before(record, recorded) else None)

    def _before(self, record: Record, recorded: Sequence[Record]) -> bool:
        """Whether the record may repeat one that retention has removed."""
        begins = self._begins_ms.get((record.topic, record.partition))
        if begins is None or record.timestamp_ms > begins + SEEN_S * 1000:
            return False
        kinds = {dict(row.headers).get("ratchet-dlq-kind") for row in recorded}
        return (not recorded or b"duplicate-id" in kinds) and not self._store.knows(
            (record.key or b"").decode("utf-8", "replace")
        )

    def otherwise(self, record: Record, recorded: Sequence[Record]) -> str | None:
        if any(not is_letter(row.topic) for row in recorded):
            self._store.lost = True
            return LOST
        later = self._decided_later(record)
        if later is None:
            return None
        self._store.first = (str(later.place), not recorded)
        return RACED

    def _decided_later(self, record: Record) -> Record | None:
        """A request with the same id, close behind, that was decided."""
        for row in self._log.of(record.topic, record.partition, record.offset + 1):
            if row.timestamp_ms > record.timestamp_ms + SIDE_BY_SIDE_MS:
                return None
            if row.key == record.key and any(
                not is_letter(one.topic) for one in self._log.outputs("router", str(row.place))
            ):
                return row
        return None

    def ended(self, gave: Rederived) -> None:
        """A session's arm can only be one that a decision of this session gave it, its own before a crash included."""
        super().ended(gave)
        oldest = self._oldest()
        rows = self._given.execute("SELECT * FROM given ORDER BY route, session, at_ms")
        for (_, session), found in groupby(rows, key=lambda row: (row[0], row[1])):
            given = [row[2:] for row in found]
            for at_ms, place, _, kept in given:
                before = {arm for given_ms, _, arm, _ in given if given_ms <= at_ms + SKEW_MS}
                if kept and kept not in before and (oldest is None or at_ms - oldest > SESSION_S * 1000):
                    field = Field("value.session_arm", kept, f"one of {sorted(before)}, or none")
                    gave.differ(Difference("router", "fact", place, "", "decision.routed", session, (field,)))

    def _oldest(self) -> int | None:
        """When a log begins of which retention has cut the beginning."""
        return max(self._begins_ms.values(), default=None)


class Lying:
    """Records by their place, out of the log."""

    def __init__(self, log: RecordedLog) -> None:
        self._log = log

    async def read(self, place: Place) -> Record | None:
        row = next(iter(self._log.of(place.topic, place.partition, place.offset)), None)
        return row if row is not None and row.offset == place.offset else None


class RecordedAround:
    """Quota, ledger and cache as the recorded decision, or refusal, says that they were."""

    def __init__(self) -> None:
        self._quota_ms: int | None = None
        self._noticed = Noticed()
        self._hit: CachedAnswer | None = None
        self._trial: CachedAnswer | None = None

    def recall(self, decision: Mapping[str, Any] | None, refused: Mapping[str, Any] | None) -> None:
        """What the next decision shall find."""
        terms: Mapping[str, Any] = (decision or {}).get("routing") or {}
        cached, trial = (decision or {}).get("cached"), (decision or {}).get("trial")
        try:
            self._noticed = Noticed.model_validate(terms.get("observed") or {})
            self._hit = None if cached is None else CachedAnswer.model_validate(cached)
            self._trial = None if trial is None else CachedAnswer.model_validate(trial)
        except ValueError:
            self._noticed, self._hit, self._trial = Noticed(), None, None  # damaged: the difference will show
        waits = None if refused is None else refused.get("retry_after_ms")
        self._quota_ms = None if refused is None else NEVER if waits is None else waits

    async def quota_ms(self, route: Route, tokens: int, once: str) -> int | None:
        return self._quota_ms

    async def noticed(self, route: Route, now_ms: int) -> Noticed:
        return self._noticed

    async def hits(self, keys: Mapping[str, str]) -> tuple[Hit, ...]:
        return tuple(Hit(arm, self._hit) for arm, key in keys.items() if self._hit is not None and self._hit.key == key)

    async def likes(self, asked: Asked) -> tuple[tuple[Like, ...], tuple[str, ...]]:
        found = [Like(one.arm, one is self._hit, one) for one in (self._hit, self._trial) if one is not None]
        return tuple(like for like in found if like.answer.kind == "semantic"), self._noticed.vetoes

    async def reserve(self, decision: DecisionRouted, route: Route, asked: Asked | None) -> None:
        """Nothing is charged again."""


class Remembered:
    """The store as the router had it: ids seen, in the log's order; a session's arm as it was observed."""

    def __init__(self, clock: StillClock) -> None:
        self.away = False
        self.lost = False
        self.first: tuple[str, bool] | None = (
            None  # the place that came first after all, and whether with the same content
        )
        self.arm: str | None = None
        self._clock = clock
        self._seen = scratch()
        self._seen.execute("CREATE TABLE seen (key TEXT PRIMARY KEY, value BLOB, until_ms INT) WITHOUT ROWID")

    def knows(self, request_id: str) -> bool:
        return self._held(f"seen:{request_id}") is not None

    def _held(self, key: str) -> tuple[bytes, int] | None:
        return self._seen.execute("SELECT value, until_ms FROM seen WHERE key = ?", (key,)).fetchone()

    async def set_if_absent(self, key: str, value: bytes, ttl_s: float) -> bytes:
        self._check()
        now, held = self._clock.at_ms, self._held(key)
        if self.first is not None:
            place, same = self.first
            digest = value.rpartition(b"|")[2] if same else b"other"
            held, value = None, place.encode() + b"|" + digest
        if held is None or held[1] <= now or self.lost:
            self._seen.execute("INSERT OR REPLACE INTO seen VALUES (?, ?, ?)", (key, value, now + int(ttl_s * 1000)))
            return value
        return held[0]

    async def get(self, key: str) -> bytes | None:
        self._check()
        return None if self.arm is None else self.arm.encode()

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        """The next decision says what it observed."""

    def _check(self) -> None:
        if self.away:
            raise Unavailable("the store was away when this was decided")
