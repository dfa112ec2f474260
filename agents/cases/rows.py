"""What a case says of each arm. Pure."""

from collections.abc import Iterator, Mapping

from agents.cases.joined import Joined, Result
from schemas.events import CaseArm, DecisionRouted, ResultCompleted

LONGEST_MS = 366 * 86_400_000  # no answer took longer, whatever a result says


def microseconds(milliseconds: float) -> int:
    return round(min(milliseconds, LONGEST_MS) * 1000)


def rows_of(
    case: Joined,
    decision: DecisionRouted,
    grades: Mapping[str, int | None],
    model_grades: Mapping[str, int | None],
) -> tuple[CaseArm, ...]:
    """The serving arm first, then those of its chain that failed before it, then the first attempt's where there are two, then the
    shadows: no arm that was asked is left out.
    """
    tried, shadows = case.tried(), case.shadows()
    asked = tuple(dict.fromkeys(_asked(case, decision, tried)))
    rows: list[CaseArm] = []
    for arm in dict.fromkeys((*asked, *shadows)):
        result, result_id = tried.get(arm, (None, ""))
        if result is None:
            rows.append(CaseArm(arm=arm, shadow=arm not in asked, status="missing"))
        else:
            rows.append(_row(result, result_id, result.shadow, grades.get(arm), model_grades.get(arm)))
    return tuple(rows)


def _asked(case: Joined, decision: DecisionRouted, tried: Mapping[str, tuple[Result, str]]) -> Iterator[str]:
    """The arms that were to serve, the last attempt's first; in each who ended the chain, who was drawn, who failed on the way."""
    for attempt in (2, 1):
        served, told = case.served(attempt), case.decision_of(attempt)
        if served is not None:
            yield served[0].arm
        if told is not None:
            yield told.arm
            yield from (arm for arm in told.chain if arm in tried)


def _row(result: Result, result_id: str, shadow: bool, grade: int | None, model_grade: int | None) -> CaseArm:
    if not isinstance(result, ResultCompleted):
        return CaseArm(
            arm=result.arm,
            adapter=result.adapter,
            shadow=shadow,
            status="failed",
            result_id=result_id,
            latency_us=microseconds(result.latency_ms),
            reason=result.reason[:500],
        )
    return CaseArm(
        arm=result.arm,
        adapter=result.adapter,
        shadow=shadow,
        status="completed",
        result_id=result_id,
        text=result.text,
        grade=grade,
        model_grade=model_grade,
        latency_us=microseconds(result.latency_ms),
        ttft_us=microseconds(result.ttft_ms),
        tokens_in=result.tokens_in,
        tokens_out=result.tokens_out,
        cost_nano_usd=result.cost_nano_usd,
        engine_us=microseconds(result.engine_ms),
        source=result.source,
    )
