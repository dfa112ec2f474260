"""The route of the router's demonstration, and the router files that are judged from its log. Pure."""

from typing import Any

from infra import banking77
from schemas.routes import Arm, JudgeSettings, Route, TrainingSettings
from schemas.routing import BudgetSettings, Price, RoutingSettings
from tools.demo.routing.story import Story

ROUTE = "banking.routed"
SMALL, LARGE = "small", "large"


def routed(story: Story, base: str, url: str, basis: str) -> Route:
    """The small model in our own engine is the champion; the large one is asked over HTTP as anyone's would be."""
    common: dict[str, Any] = {
        "max_tokens": banking77.MAX_TOKENS,
        "stop": banking77.STOP,
        "template": banking77.TEMPLATE,
    }
    return Route(
        route=ROUTE,
        compliance="off",
        release="immediate",
        grader="reference",
        arms=(
            Arm(arm=SMALL, base=base, **common),
            Arm(arm=LARGE, provider="openai_http", model=LARGE, url=url, **common),
        ),
        champion=SMALL,
        window_s=story.window_s,
        deadline_s=story.window_s,
        review_share=0,
        judge=JudgeSettings(),
        training=TrainingSettings(enabled=False),
        routing=RoutingSettings(
            strategy="balanced",
            arms=(LARGE,),
            basis=basis,
            budget=BudgetSettings(nano_usd=story.budget, period_s=story.period_s, requests=story.period_requests),
            prices=(_price(SMALL, story.small_price), _price(LARGE, story.large_price)),
            warm_share=1.0,
            warm_labels=story.warm_labels,
            explore=story.explore,
            floor=0.05,
            ridge=1 / 32,
        ),
    )


def without_large(route: Route) -> Route:
    """The route before the large model is there: the champion answers everything."""
    return Route.model_validate(
        route.model_dump() | {"arms": [route.arms[0].model_dump()], "routing": RoutingSettings().model_dump()}
    )


def _price(arm: str, nano_usd: int, since_ms: int = 0) -> Price:
    return Price(arm=arm, since_ms=since_ms, nano_usd_in=nano_usd, nano_usd_out=nano_usd)


def dearer(route: Route, story: Story, since_ms: int) -> Route:
    """The same route; from then on the large model costs more."""
    price = _price(LARGE, story.large_price * story.dearer, since_ms)
    return with_routing(route, route.routing.model_copy(update={"prices": (*route.routing.prices, price)}))


def settled(routing: RoutingSettings, story: Story) -> RoutingSettings:
    """What shall be rolled out: the same, but with little exploration."""
    return routing.model_copy(update={"explore": story.settled_explore, "floor": 0.01})


def frugal(routing: RoutingSettings) -> RoutingSettings:
    """What must not be: the champion for everybody."""
    return routing.model_copy(update={"strategy": "fixed"})


def with_routing(route: Route, routing: RoutingSettings, **more: Any) -> Route:
    """The route with these routing settings, checked anew."""
    return Route.model_validate(route.model_dump() | {"routing": routing.model_dump()} | more)


def tried(route: Route, routing: RoutingSettings, part: float) -> Route:
    """The route, on which the other settings decide for a share."""
    return Route.model_validate(route.model_dump() | {"trial": routing.model_dump(), "trial_share": part})
