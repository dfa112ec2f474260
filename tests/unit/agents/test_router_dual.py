"""λ solved again: what it comes to, and that a route keeps its budget from the first warm request on."""

from collections import deque

import pytest
from folding import Folding
from hypothesis import given
from hypothesis import strategies as st

from agents.router import dual, pacer
from agents.router.fold import Learner
from agents.router.state import NEAR, ArmCounts, Near
from schemas import ids
from schemas.events import ArmChoice, ArmTerms, CaseAnswered, CaseArm, CaseClosed, CommandApply, Message, RoutingTerms
from schemas.policies import PolicyRouter
from schemas.routes import Arm, Route
from schemas.routing import BudgetSettings, Price, RoutingSettings

T0 = 1_790_000_040_000  # a period of a minute begins
BUDGET = 6_000
MICRO = 1_000_000
EVERY_MS = 70

rows = st.lists(
    st.fixed_dictionaries({"a": st.integers(0, MICRO), "b": st.integers(0, MICRO), "dear": st.integers(600, 40_000)}),
    min_size=dual.LEAST_ROWS,
    max_size=60,
)


def near(row):
    return Near(tokens_in=10, arms={"a": (row["a"], 500), "b": (row["b"], row["dear"])})


def spent(told, price):
    """The cost of what is best at a price, by plain Python; of two alike the one whose name comes first."""

    def score(one):
        quality, cost = one[1]
        return quality - price * (cost * MICRO // BUDGET) // MICRO

    return sum(max(sorted(row.arms.items()), key=score)[1][1] for row in told)


PACE = pacer.Pace(BUDGET)


@given(rows, st.integers(1, 40_000))
def test_it_is_the_least_price_that_keeps_the_target(drawn, target):
    told = [near(row) for row in drawn]
    price = dual.solved(told, ["a", "b"], BUDGET, target)
    assert price is not None
    least = sum(min(cost for _, cost in row.arms.values()) for row in told)
    assert spent(told, price) <= max(target * len(told), least)
    assert not price or spent(told, price - 1) > max(target * len(told), least)


def test_of_too_few_comparisons_nothing_is_said():
    told = [near({"a": 0, "b": MICRO, "dear": 9000})] * (dual.LEAST_ROWS - 1)
    assert dual.solved(told, ["a", "b"], BUDGET, BUDGET) is None
    assert dual.solved([*told, told[0]], ["a"], BUDGET, BUDGET) is None  # the other arm is not the route's


def test_a_new_price_is_felt_in_what_was_compared_before_it():
    old = Near(tokens_in=10, arms={"a": (0, 500), "b": (MICRO, 5_000)})
    prices = (
        Price(arm="b", nano_usd_in=10, nano_usd_out=10),
        Price(arm="b", since_ms=T0, nano_usd_in=900, nano_usd_out=100),
    )
    counts = {"b": ArmCounts(cases=3, tokens_out_milli=4000)}
    assert dual.today(old, prices, counts, T0 - 1).arms["b"] == (MICRO, 140)
    assert dual.today(old, prices, counts, T0).arms == {"a": (0, 500), "b": (MICRO, 9_400)}
    assert dual.today(old, prices, {}, T0) == old  # nobody knows yet what its answers take


class World:
    """Requests of two arms through the learner alone: its policy decides, the verdict comes `delay` requests later."""

    def __init__(self, *, requests=900, period_s=60, delay=40):
        self.folding = Folding(Learner())
        self.prices = [
            Price(arm="small", nano_usd_in=20, nano_usd_out=20),
            Price(arm="big", nano_usd_in=400, nano_usd_out=400),
        ]
        self.budget = BudgetSettings(nano_usd=BUDGET, period_s=period_s, requests=requests)
        self.number, self.delay, self.down = 0, delay, False
        self.waiting: deque[CaseClosed] = deque()
        self.period, self.spent, self.count = -1, 0, 0
        self.apply()

    def apply(self):
        arms = (Arm(arm="small", base="sha256:s"), Arm(arm="big", base="sha256:b"))
        routing = RoutingSettings(strategy="balanced", arms=("big",), budget=self.budget, prices=tuple(self.prices))
        made = Route(route="r", compliance="off", arms=arms, champion="small", routing=routing)
        self.folding.take(CommandApply(at_ms=self.now, route="r", operator="op", settings=made))

    @property
    def now(self):
        return T0 + EVERY_MS * self.number

    def cost(self, arm, tokens):
        tariff = dual.price_at(self.prices, arm, self.now)
        return dual.cost_nano(tariff, tokens, 0, 5, 0)

    def price(self):
        """As the router has it: the policy's, corrected by the ledger."""
        period = self.now // (self.budget.period_s * 1000)
        if period != self.period:
            self.period, self.spent, self.count = period, 0, 0
        told = self.folding.of(PolicyRouter)[-1].lambda_cost
        return pacer.corrected(pacer.Pacer(told), PACE, self.spent, BUDGET * self.count)

    def ask(self, *, warm=False):
        """One request; what its answer cost."""
        of = ids.coin(str(self.number), "text")
        tokens, quality = 15 + of % 20, {"small": 200_000 + of * 12, "big": 950_000}
        costs = {arm: self.cost(arm, tokens) for arm in quality}
        price = self.price()
        best = max(sorted(quality), key=lambda arm: pacer.score(quality[arm], costs[arm], PACE, price))
        arm = "small" if warm or self.down else best
        paid = costs[arm] + (costs["big"] if warm else 0)
        self.spent, self.count = self.spent + paid, self.count + 1
        common = {
            "at_ms": self.now, "route": "r", "request_id": f"q{self.number}", "request_partition": 0,
            "request_offset": self.number, "decision_id": f"d{self.number}", "assigned_at_ms": self.now,
            "window_end_ms": self.now + 600_000, "arm": arm, "strategy": "balanced",
        }  # fmt: skip
        answered = CaseAnswered(**common, ok=True, latency_us=1000, released=True, cost_nano_usd=costs[arm])
        self.folding.take(answered)
        self.waiting.append(self._closed(common, quality, costs, tokens, warm=warm))
        if len(self.waiting) > self.delay:
            late = self.waiting.popleft()
            self.folding.take(late.model_copy(update={"at_ms": self.now}))
        self.number += 1
        return costs[arm]

    def _closed(self, common, quality, costs, tokens, *, warm):
        arm, tariffs = common["arm"], {name: dual.price_at(self.prices, name, self.now) for name in quality}
        arms = tuple(
            CaseArm(
                arm=name, shadow=name != arm, status="completed", text="t", grade=1000, tokens_in=tokens, tokens_out=5,
            )
            for name in (("small", "big") if warm else (arm,))
        )  # fmt: skip
        choices = tuple(
            ArmChoice(
                arm=name, adapter=None, propensity=32_768, masks=("breaker",) if self.down and name == "big" else (),
                terms=ArmTerms(
                    quality=quality[name], deviation=0, score=0, cost_nano_usd=costs[name],
                    nano_usd_in=tariffs[name].nano_usd_in, nano_usd_out=tariffs[name].nano_usd_out,
                ),
            )
            for name in sorted(quality)
        )  # fmt: skip
        told = RoutingTerms(strategy="balanced", sensitivity="internal", tokens_in=tokens)
        return CaseClosed(
            **common, why="complete", arms=arms, choices=choices, messages=(Message(role="user", content="t"),),
            grader="reference", verdict_kind="reference", routing=told,
        )  # fmt: skip

    def mean(self, count):
        return sum(self.ask() for _ in range(count)) / count


@pytest.mark.parametrize("delay", [0, 100])
def test_a_route_keeps_its_budget_when_prices_rise_and_an_arm_dies(delay):
    """Whole periods of warm requests: within 2 % of the budget under a steady price, within 5 % where something happens."""
    world = World(delay=delay, requests=857)
    for _ in range(150):
        world.ask(warm=True)
    rest = 857 - 150
    assert world.mean(rest) <= BUDGET
    assert world.spent <= 1.02 * BUDGET * 857, "the shadows of the warm-up too"
    assert world.mean(857) == pytest.approx(BUDGET, rel=0.02)
    world.prices.append(Price(arm="big", since_ms=world.now, nano_usd_in=800, nano_usd_out=800))
    world.apply()
    assert world.mean(857) == pytest.approx(BUDGET, rel=0.02)
    world.down = True
    assert world.mean(200) < BUDGET / 4
    world.down = False
    assert world.mean(657) == pytest.approx(BUDGET * 857 / 657, rel=0.12)  # what was not spent is there to be spent
    assert world.mean(857) == pytest.approx(BUDGET, rel=0.02)


def test_a_return_finds_the_price_in_place():
    """While an arm is down λ does not fall to nothing: the first requests after it are no flood."""
    world = World(requests=857)
    for _ in range(150):
        world.ask(warm=True)
    world.mean(1200)
    before = world.folding.of(PolicyRouter)[-1].lambda_cost
    world.down = True
    world.mean(60)
    assert world.folding.of(PolicyRouter)[-1].lambda_cost > before / 4


def test_the_last_comparisons_are_kept_and_no_more():
    world = World()
    for _ in range(400):
        world.ask()
    assert sum(name.startswith(NEAR) for name in world.folding.cells["r"].entries) == dual.ROWS
