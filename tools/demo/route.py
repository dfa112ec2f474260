"""The demonstration's route: the judge's usual α, small margins of time, a latency objective and prices for a small CPU."""

from typing import Literal

from infra import banking77
from schemas.gate import Flow, GateTenant
from schemas.routes import Arm, JudgeSettings, Route, TrainingSettings
from tools.demo.champion import Scale

ROUTE = "banking.intent"
CHAMPION = "base"
MAX_PAIRS = 1000
REGION = "local"
NOTICE = "demo-notice-1"
PERMITTED = GateTenant(
    tenant="default",
    purposes={"support": ("contract",), "training": ("legitimate_interest",)},
    purpose="support",
    basis="contract",
    notices=(NOTICE,),
    notice=NOTICE,
    origin=REGION,
    flows=(Flow(origin=REGION, region=REGION),),
)
"""What the gate permits the demonstration's bank: to answer customers and to learn from them, on this machine."""
CHAOS_WINDOW_S = 150.0  # an engine that was killed needs a minute and more on two cores, and an answer may wait for it

Labels = Literal["true", "shuffled"]


def demo_route(base: str, scale: Scale, *, labels: Labels, chaos: bool, by_command: bool = False) -> Route:
    """`by_command`: the demonstration says when to train; else enough rows do."""
    window_s = max(CHAOS_WINDOW_S, scale.window_s) if chaos else scale.window_s
    arm = Arm(
        arm=CHAMPION,
        base=base,
        max_tokens=banking77.MAX_TOKENS,
        stop=banking77.STOP,
        template=banking77.TEMPLATE,
        nano_usd_in=100,
        nano_usd_out=100,
        region=REGION,
    )
    return Route(
        route=ROUTE,
        release="immediate",
        grader="reference",
        arms=(arm,),
        champion=CHAMPION,
        window_s=window_s,
        deadline_s=window_s,
        review_share=0,
        shadow_share=1,
        judge=_judge(scale),
        training=TrainingSettings(
            enabled=not by_command,
            min_rows=scale.rows,
            min_new_rows=scale.rows,
            min_rows_per_class=5,
            min_interval_s=86_400,
            epochs=scale.useless_epochs if by_command and labels == "shuffled" else scale.lora_epochs,
            learning_rate=scale.lora_rate,
            time_limit_s=900,
            holdout="report" if labels == "shuffled" else scale.holdout,
            shuffle_labels=labels == "shuffled",
        ),
    )


def _judge(scale: Scale) -> JudgeSettings:
    return JudgeSettings(
        min_pairs=100,
        max_pairs=MAX_PAIRS,
        min_time_s=scale.min_time_s,
        cooldown_s=5,
        win_by=("quality",),
        latency_slo_ms=6000,
        latency_margin=0.05,
        latency_harm=0.10,
        error_margin=scale.error_margin,
        error_harm=2 * scale.error_margin,
        cost_margin=scale.cost_margin,
        cost_harm=3 * scale.cost_margin,
        novelty_pairs=scale.novelty_pairs,
        stages=(0.2, 0.5, 0.8),
        stage_time_s=scale.stage_time_s,
        stage_pair_share=0.3,
        holdback_share=0.3,
        breaker_window=scale.breaker_window,
        breaker_error=0.05,
    )
