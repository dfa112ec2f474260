"""The router's demonstration, lived: from the applied route to the exported evidence, everything through Kafka as anyone's would go."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from schemas.errors import Unavailable
from schemas.events import CommandApply
from schemas.ids import derive
from schemas.routes import Route
from schemas.topics import PREFIX
from tools.demo.ledger import Phase
from tools.demo.play import Customer, Street
from tools.demo.routing import route as routes
from tools.demo.routing.log import RoutingLedger, answered_by, cost, good, rolling
from tools.demo.routing.preview import Preview, previewed
from tools.demo.routing.route import LARGE, ROUTE, SMALL
from tools.demo.routing.server import Server
from tools.demo.routing.story import Story
from tools.demo.run import Telling, until
from tools.demo.wire import WATCHED, KafkaWire
from tools.routes import table

CONCURRENCY = 16
WINDOW = 60  # answers that a rolling figure looks back on
LIVE_PATIENCE_S = 300
ANSWER_PATIENCE_S = 120
STAGES = (0.2, 0.5, 0.8)


@dataclass(slots=True, kw_only=True)
class Tour(Telling):
    """One run of the router's demonstration and what it found. `times`: epoch ms of what was done."""

    story: Story
    ledger: RoutingLedger = field(default_factory=RoutingLedger)
    times: dict[str, int] = field(default_factory=dict[str, int])
    previews: dict[str, Preview] = field(default_factory=dict[str, Preview])
    staged: bool = False
    route: dict[str, Any] = field(default_factory=dict[str, Any])


async def live(tour: Tour, server: Server, route: Route, customers: deque[Customer]) -> dict[str, Any]:
    """The acts, one after the other; what the offline verifier says of their evidence."""
    voices = await tour.stage.voices()
    wire = KafkaWire(tour.stage.bootstrap, tour.stage.partitions, voices, (*WATCHED, PREFIX + "observations"))
    await wire.start()
    name = f"routing-{wire.now_ms()}"
    street = Street(wire, tour.ledger, route=ROUTE, run=name, staff=voices["verdicts"].name, concurrency=CONCURRENCY)
    await street.open()
    teller = asyncio.create_task(_tell(tour))
    acts = Acts(tour, wire, street, server, route, customers, voices["commands"].name)
    try:
        await acts.opening()
        await acts.learning()
        await acts.dearer()
        await acts.failure()
        await acts.judging()
        await acts.rollout()
        with tour.phase("evidence", "The evidence is exported and checked offline"):
            return await tour.stage.evidence(tour.folder / "evidence", tour.ledger.last_answered())
    finally:
        teller.cancel()
        await street.close()
        await wire.stop()


class Acts:
    """What happens, act by act."""

    def __init__(
        self,
        tour: Tour,
        wire: KafkaWire,
        street: Street,
        server: Server,
        route: Route,
        customers: deque[Customer],
        operator: str,
    ) -> None:
        self.tour, self.wire, self.street, self.server = tour, wire, street, server
        self.route, self.customers, self.operator = route, customers, operator
        self.ledger, self.story = tour.ledger, tour.story

    def alive(self) -> None:
        """Raise what has ended the run."""
        fault = self.street.failure()
        if fault is not None:
            raise fault

    def _loads(self) -> None:
        """As `alive`; an arm that our engine cannot load will not come by waiting."""
        self.alive()
        refused = [why for why in self.ledger.refused if why.startswith("adapter: vLLM")]
        if refused:
            raise Unavailable(f"our engine does not load the small model: {refused[0]}; Ray's logs say why")

    async def opening(self) -> None:
        tour, story, ledger = self.tour, self.story, self.ledger
        with tour.phase(
            "apply", "The route is applied: a small model in our engine; then a large one, asked over HTTP"
        ):
            await self._apply(routes.without_large(self.route), keep=False)
            await self.server.ready()
            tour.say("the provider answers: vLLM's own server, with the large model")
            await self._apply(self.route)
            live = {SMALL, LARGE}
            await until(lambda: live <= set(ledger.live), LIVE_PATIENCE_S, self._loads, "not every arm is live")
        with tour.phase("warm-up", f"Both arms answer every request, until each has {story.warm_labels} labels"):
            self._mark("warm-up")
            await self._ask("warm-up", until=lambda: ledger.warm_ms is not None, pace_s=story.warm_pace_s)
            if ledger.warm_ms is None:
                raise Unavailable("the router did not get warm with all the messages there are")
            tour.say(f"[green]warm[/] after {len(ledger.asked)} requests; from now on the router chooses")

    async def learning(self) -> None:
        with self.tour.phase("learnt", "The router chooses within its budget, and goes on learning"):
            self._mark("the router chooses")
            await self._ask("learnt", count=self.story.learnt)

    async def dearer(self) -> None:
        with self.tour.phase("dearer", f"The large model's price rises {self.story.dearer}-fold; the budget stays"):
            await self._apply(routes.dearer(self.route, self.story, self.wire.now_ms()))
            self._mark(f"price × {self.story.dearer}")
            await self._ask("dearer", count=self.story.dear)

    async def failure(self) -> None:
        """The provider is killed, and started again as soon as its breaker is open; requests go on all the while."""
        tour, ledger = self.tour, self.ledger
        with tour.phase("failure", "The provider is killed while requests flow"):
            closed = len(ledger.breaker(LARGE, "closed"))
            pid = await asyncio.to_thread(self.server.kill)
            self._mark("killed")
            tour.say(f"[red]SIGKILL[/] provider (pid {pid})")
            pace_s = self.story.failure_pace_s
            await self._ask("failure", until=lambda: bool(ledger.breaker(LARGE, "open")), pace_s=pace_s)
            if not ledger.breaker(LARGE, "open"):
                raise Unavailable("the breaker did not open")
            opened = ledger.breaker(LARGE, "open")[0]
            tour.say(
                f"[red]breaker open[/]: {opened.failed} of {opened.calls} calls had failed; the small model answers"
            )
            self._mark("breaker open", opened.at_ms)
            self.server.start()
            self._mark("restarted")
            await self._ask("failure", count=self.story.gap, pace_s=pace_s)
            booting = asyncio.create_task(self.server.ready())
            await self._ask("failure", until=booting.done, pace_s=self.story.boot_pace_s)
            await booting
            tour.say("the provider answers again; the breaker's next probe will find it")
            await self._ask("failure", until=lambda: len(ledger.breaker(LARGE, "closed")) > closed, pace_s=3 * pace_s)
            await until(
                lambda: len(ledger.breaker(LARGE, "closed")) > closed, 90, self.alive, "the breaker did not close"
            )
            back = ledger.breaker(LARGE, "closed")[-1]
            tour.say("[green]breaker closed[/]: the large model answers again")
            self._mark("breaker closed", back.at_ms)
        with tour.phase("returned", "The large model is back"):
            await self._ask("returned", count=self.story.returned)
            await self.street.settle(ANSWER_PATIENCE_S, self.alive)

    async def judging(self) -> None:
        """Two router files are judged from the log of the running one: nobody is served by either."""
        tour, routing = self.tour, self.route.routing
        since = self.ledger.warm_ms or 0
        with tour.phase("judged", "Two other policies are judged from the log, before anyone is served by them"):
            self._mark("judged")
            for name, other in (("frugal", routes.frugal(routing)), ("settled", routes.settled(routing, self.story))):
                file = tour.folder / f"{name}.toml"
                file.write_text(table("routing", other), encoding="utf-8")
                found = await asyncio.to_thread(previewed, tour.stage.state, ROUTE, file, since)
                tour.previews[name] = found
                word = "[green]may be rolled out[/]" if found.may_roll_out else "[red]may not[/]"
                tour.say(f"{name}: {word}; {found.words}")

    async def rollout(self) -> None:
        """The new policy takes over, by shares."""
        tour, story = self.tour, self.story
        if not tour.previews["settled"].may_roll_out:
            tour.say("the log does not carry the new policy: it is not rolled out")
            return
        new = routes.settled(self.route.routing, story)
        with tour.phase("rollout", "The new policy is rolled out: 20, 50, 80 %, then all"):
            for part in STAGES:
                await self._apply(routes.tried(self.route, new, part), keep=False)
                self._mark(f"{part:.0%}")
                await self._ask("rollout", count=story.stage)
                tour.staged = True
            await self._apply(routes.with_routing(self.route, new))
            self._mark("100 %")
            await self._ask("whole", count=story.whole)
            await self.street.settle(ANSWER_PATIENCE_S, self.alive)

    # steps

    async def _ask(
        self,
        phase: Phase,
        *,
        until: Callable[[], bool] = lambda: False,
        count: int | None = None,
        pace_s: float | None = None,
    ) -> None:
        most = len(self.ledger.asked) + (len(self.customers) if count is None else count)
        pace = self.story.pace_s if pace_s is None else pace_s
        await self.street.ask(
            self.customers,
            lambda: phase,
            until=lambda: len(self.ledger.asked) >= most or until(),
            alive=self.alive,
            pace_s=lambda: pace,
        )

    def _mark(self, words: str, at_ms: int | None = None) -> None:
        self.tour.times[words] = self.wire.now_ms() if at_ms is None else at_ms
        self.tour.mark(words)

    async def _apply(self, route: Route, *, keep: bool = True) -> None:
        at, known = self.wire.now_ms(), len(self.ledger.routes)
        command = CommandApply(
            route=route.route, at_ms=at, operator=self.operator, reason="demonstration", settings=route
        )
        await self.wire.send([(command, derive(f"demo/{at}", "demo", "apply"))])
        await until(lambda: len(self.ledger.routes) > known, 60, self.alive, "the route was not applied")
        self.tour.route = route.model_dump(mode="json")
        if keep:
            self.route = route


async def _tell(tour: Tour) -> None:
    """A line every few seconds, and the memory that all of it takes."""
    while True:
        await asyncio.sleep(4)
        tour.peak_rss = max(tour.peak_rss, await asyncio.to_thread(tour.stage.resident_bytes))
        rows = tour.ledger.rows()
        if not rows:
            continue
        words = [f"{len(tour.ledger.asked)} asked, {len(rows)} cases"]
        right = rolling(rows, good, WINDOW)
        if right:
            words.append(f"of the last {WINDOW} right [bold]{right[-1][1]:.0%}[/]")
            words.append(f"by the large one {rolling(rows, answered_by(LARGE), WINDOW)[-1][1]:.0%}")
        paid = rolling(rows, cost, WINDOW)
        if paid:
            words.append(f"{paid[-1][1] / 1000:.2f} of {tour.story.budget / 1000:.2f} micro-dollars a request")
        words.append(f"[dim]λ {rows[-1].price / 1e6:.3f}[/]")
        tour.say("; ".join(words))
