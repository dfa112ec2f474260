"""Who asks in a benchmark: requests out in batches, answers and cases in, a reference verdict for every answer."""

import asyncio
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from agents.wiring import groups
from infra.clock import SystemClock
from schemas import codec, ids
from schemas.errors import Unavailable
from schemas.events import CommandApply, Message, RequestSubmitted, VerdictGiven
from schemas.payload import TYPE_PREFIX, Payload
from schemas.routes import Route
from schemas.topics import PREFIX
from streams.kafka import KafkaBroker
from streams.port import TP, Admin, Outgoing
from streams.wire import partition_of
from tools.voice import Voice

WATCHED = tuple(PREFIX + name for name in ("answers", "cases", "results", "policies"))
CASES = PREFIX + "cases"
STUCK_S = 60.0


@dataclass(slots=True)
class Seen:
    """What came back, by request id: broker timestamps in ms."""

    answered: dict[str, int] = field(default_factory=dict[str, int])
    closed: dict[str, int] = field(default_factory=dict[str, int])
    tokens: dict[str, int] = field(default_factory=dict[str, int])
    kinds: dict[str, int] = field(default_factory=lambda: defaultdict[str, int](int))
    live: set[str] = field(default_factory=set[str])
    next: dict[TP, int] = field(default_factory=dict[TP, int])  # after the last record of each watched partition


class Driver:
    """`async with Driver(bootstrap, partitions, route, voices)`. Reads from now on."""

    def __init__(
        self, bootstrap: str, partitions: int, route: Route, voices: Mapping[str, Voice], *, verdicts: bool = True
    ) -> None:
        self._broker = KafkaBroker(bootstrap)
        self._partitions = partitions
        self._voices = voices  # by topic
        self._verdicts = verdicts
        self._producer = self._broker.producer()
        self._clock = SystemClock()
        self._positions: dict[TP, int] = {}
        self._task: asyncio.Task[None] | None = None
        self._asked: set[str] = set()
        self.route = route
        self.seen = Seen()
        self.changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        admin = self._broker.admin()
        await admin.start()
        self._positions = await admin.ends([(topic, p) for topic in WATCHED for p in range(self._partitions)])
        await admin.stop()
        await self._producer.start()
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._producer.stop()

    def now_ms(self) -> int:
        return self._clock.now_ms()

    async def apply(self, timeout_s: float = 180.0) -> None:
        """Apply the route and wait until its champion is live."""
        at = self.now_ms()
        command = CommandApply(
            route=self.route.route,
            at_ms=at,
            operator=self._voices["commands"].name,
            reason="benchmark",
            settings=self.route,
        )
        await self._send([command])
        try:
            async with asyncio.timeout(timeout_s):
                while self.route.champion not in self.seen.live:
                    await self._wait()
        except TimeoutError:
            raise Unavailable(f"the champion is not live within {timeout_s:.0f} s; the agents' logs say why") from None
        await self._clock.sleep(1.0)  # the router reads the same policy a moment later

    async def ask(self, requests: Iterable[tuple[str, str, int]]) -> None:
        """Publish (id, text, time) requests; returns when the broker has them."""
        events: list[Payload] = []
        for request_id, text, at_ms in requests:
            self._asked.add(request_id)
            events.append(
                RequestSubmitted(
                    route=self.route.route,
                    request_id=request_id,
                    at_ms=at_ms,
                    messages=(Message(role="user", content=text),),
                )
            )
        await self._send(events)

    async def flood(self, texts: Sequence[str], name: str, *, outstanding: int, batch: int = 250) -> tuple[int, int]:
        """Ask all with at most `outstanding` without a closed case. First publish and last closed case in ms."""
        started, base, sent = self.now_ms(), len(self.seen.closed), 0
        while sent < len(texts):
            room = outstanding - (sent - (len(self.seen.closed) - base))
            if room < min(batch, outstanding):
                await self._wait()
                continue
            part = range(sent, min(sent + batch, len(texts)))
            at = self.now_ms()
            await self.ask([(f"{name}-{n:06d}", texts[n], at) for n in part])
            sent = part.stop
        await self.until({f"{name}-{n:06d}" for n in range(len(texts))})
        return started, max(at for request, at in self.seen.closed.items() if request.startswith(name))

    async def until(self, requests: set[str], *, answered: bool = False) -> None:
        """Wait until every one is closed (or answered and its tokens are known)."""
        while not all(requests <= found.keys() for found in self._wanted(answered)):
            await self._wait()

    def _wanted(self, answered: bool) -> tuple[dict[str, int], ...]:
        return (self.seen.answered, self.seen.tokens) if answered else (self.seen.closed,)

    async def caught_up(self, timeout_s: float = STUCK_S) -> None:
        """Wait until every group has committed all the cases that this reader has seen."""
        wanted = {tp: after for tp, after in self.seen.next.items() if tp[0] == CASES}
        admin = self._broker.admin()
        await admin.start()
        try:
            async with asyncio.timeout(timeout_s):
                for group in (name for name, inputs in groups().items() if CASES in inputs):
                    while not await self._past(admin, group, wanted):
                        await self._clock.sleep(0.05)
        except TimeoutError:
            raise Unavailable(f"some agents are more than {timeout_s:.0f} s behind the cases") from None
        finally:
            await admin.stop()

    async def _past(self, admin: Admin, group: str, wanted: Mapping[TP, int]) -> bool:
        committed = await admin.committed(group, list(wanted))
        return all(committed.get(tp, 0) >= after for tp, after in wanted.items())

    async def _wait(self) -> None:
        """Until something has come back. Raises `Unavailable` when nothing does for long."""
        if self._task is not None and self._task.done():
            self._task.result()
        self.changed.clear()
        try:
            async with asyncio.timeout(STUCK_S):
                await self.changed.wait()
        except TimeoutError:
            raise Unavailable(
                f"nothing came back for {STUCK_S:.0f} s: {len(self._asked)} asked, {len(self.seen.answered)} answered, "
                f"{len(self.seen.closed)} cases closed; the agents' logs say why"
            ) from None

    async def _send(self, events: Sequence[Payload]) -> None:
        rows: dict[TP, list[Outgoing]] = defaultdict(list)
        for payload in events:
            name = getattr(payload, "request_id", str(payload.at_ms))
            event_id = ids.derive(f"bench/{name}", payload.TYPE, 0)
            row = codec.encode(
                payload, event_id=event_id, source="ratchet/bench", traceparent=ids.trace_parent(None, event_id)
            )
            row = self._voices[payload.TOPIC].prove(row)
            place = (PREFIX + payload.TOPIC, partition_of(row.key, self._partitions))
            rows[place].append(Outgoing(row.key, row.value, row.headers))
        await asyncio.gather(*(self._producer.send(*place, batch) for place, batch in rows.items()))

    async def _watch(self) -> None:
        reader = self._broker.reader(self._positions)
        await reader.start()
        try:
            while True:
                fresh: list[str] = []
                polled = await reader.poll(timeout_s=0.2, max_records=2000)
                for place, records in polled.items():
                    if records:
                        self.seen.next[place] = records[-1].offset + 1
                    for record in records:
                        kind = dict(record.headers).get("ce_type", b"").decode()
                        self._take(kind, record.value, record.timestamp_ms, fresh)
                if fresh and self._verdicts:
                    await self._judge(fresh)
                if polled:
                    self.changed.set()
        finally:
            await reader.stop()

    def _take(self, kind: str, value: bytes | None, at_ms: int, fresh: list[str]) -> None:
        """Plain JSON, not the models: the driver shares the cores with what it measures."""
        said: dict[str, Any] = json.loads(value or b"{}")
        request = str(said.get("request_id", ""))
        seen = self.seen
        kind = kind.removeprefix(TYPE_PREFIX)
        if request and request in self._asked:
            if kind.startswith("answer."):
                seen.kinds[kind] += 1
                if request not in seen.answered:
                    seen.answered[request] = at_ms
                    fresh.append(request)
            elif kind.startswith("case.closed"):
                seen.closed.setdefault(request, at_ms)
            elif kind.startswith("result.completed"):
                seen.tokens.setdefault(request, int(said["tokens_out"]))
        elif kind.startswith("policy.live"):
            seen.live |= {str(arm["arm"]) for arm in said["arms"] if arm["route"] == self.route.route}

    async def _judge(self, requests: Sequence[str]) -> None:
        now = self.now_ms()
        await self._send(
            [
                VerdictGiven(
                    route=self.route.route,
                    request_id=request,
                    at_ms=now,
                    by=self._voices["verdicts"].name,
                    kind="reference",
                    corrected="amber",
                )
                for request in requests
            ]
        )
