"""The shell of the grader: asks the judge model of a route about its reviews, and gives its verdicts.

What cannot be graded gives no verdict and becomes a dead letter that says why: the case then closes at its window's end, and
its pair counts as one whose verdict is missing. `ratchet dlq send` has it asked again.
"""

from collections.abc import Sequence
from typing import Protocol

from agents.cases import decide
from agents.ports import ArmSpec, Clock, EngineGuest
from agents.rules.grading import asks_model
from schemas import ids
from schemas.errors import Refused, Unavailable
from schemas.events import ReviewRequested
from schemas.payload import Payload
from schemas.policies import PolicyRoute
from schemas.principal import Prove
from schemas.routes import Arm, Route
from streams.shapes import DeadLetter, Emit, Event, Out, Record, View


class Voice(Protocol):
    """What the grader's verdicts are proven with."""

    async def prover(self) -> Prove:
        """Raises `Refused` where proof is asked for and the grader has no key that counts."""
        ...


class Grader:
    """Transform `grader`. Keeps nothing. A review that no model judges costs it nothing."""

    name = decide.NAME
    inputs: Sequence[str] = ("ratchet.reviews",)

    def __init__(self, policies: View, engine: EngineGuest, voice: Voice, clock: Clock) -> None:
        self._policies = policies
        self._engine = engine
        self._voice = voice
        self._clock = clock

    async def __call__(self, event: Event[Payload]) -> Sequence[Out]:
        review = _for_model(event)
        if review is None:
            return ()
        if self._clock.now_ms() >= review.due_ms:
            return (
                DeadLetter(event.record, "deadline", "the case's window has ended before a judge model could be asked"),
            )
        route, arm = self._judge_of(review)
        prove = await self._voice.prover()
        graded = await self._graded(review, route, arm, event.id)
        if graded.problem is not None:
            return (DeadLetter(event.record, *graded.problem),)
        given = decide.verdict(review, arm.arm, graded.ratings, self._clock.now_ms())
        return (Emit(given, "verdict", prove=prove),)

    def refused(self, record: Record, error: Exception) -> Sequence[Out] | None:
        return None

    def deadline_ms(self, event: Event[Payload]) -> int | None:
        review = _for_model(event)
        return None if review is None else review.due_ms

    def expired(self, event: Event[Payload], error: Exception) -> Sequence[Out]:
        return (DeadLetter(event.record, "unavailable", f"the judge model could not be asked: {error}"),)

    def _judge_of(self, review: ReviewRequested) -> tuple[Route, Arm]:
        """The route as applied now, and its judge model."""
        policy = self._policies.get(PolicyRoute, f"route/{review.route}")
        if policy is None:
            raise Unavailable(f"route {review.route!r} has no policy yet", retry_after_s=1.0)
        route = policy.data.settings
        arm = next((arm for arm in route.arms if arm.arm == route.grading.arm), None)
        if arm is None or (review.grader == "rubric" and not route.grading.rubric):
            raise Refused(
                f"route {review.route!r} names no judge model now, or no rubric; accepted: a route with grading.arm",
                kind="no-judge",
                field="grader",
                accepted="a route with grading.arm",
            )
        if review.judges is not None and arm.arm not in review.judges:
            raise Refused(
                f"route {review.route!r}: its judge model may not see this text; accepted: an arm that the decision does not mask for "
                "gate, privacy or residency",
                kind="confined",
                field="judges",
                accepted="an arm that may see the text",
            )
        return route, arm

    async def _graded(self, review: ReviewRequested, route: Route, arm: Arm, event_id: str) -> decide.Graded:
        """Ask what the rules ask, one after the other: reviews are graded side by side already."""
        asking = decide.grading(review, route.grading, ids.short(event_id))
        spec = ArmSpec.of(f"{review.route}/{arm.arm}", arm)
        prompt = next(asking)
        while True:
            left_s = (review.due_ms - self._clock.now_ms()) / 1000
            if left_s <= 0:
                raise Unavailable("the case's window has ended")
            made = await self._engine.generate(spec, prompt, event_id, min(route.deadline_s, left_s))
            try:
                prompt = asking.send(made.text)
            except StopIteration as end:
                return end.value


def _for_model(event: Event[Payload]) -> ReviewRequested | None:
    """The review, where a judge model is asked about it."""
    review = event.data
    if isinstance(review, ReviewRequested) and asks_model(review.grader, len(review.answers)):
        return review
    return None
