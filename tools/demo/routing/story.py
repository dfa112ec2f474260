"""What the demonstration of the router tells: which models there are, who asks, what they cost, how long each act takes. Pure.

The small model knows half of the intents; the large one, trained longer and on all of them, answers behind HTTP as a provider and costs
twenty times as much. Which of the two a message needs, nobody says: the router learns it from the verdicts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from infra import banking77
from infra.banking77 import Message
from tools.demo.play import Customer


def _small() -> dict[str, int]:
    return {"vocabulary": 1024, "layers": 1, "width": 96, "heads": 3, "inner": 192, "epochs": 14}


def _large() -> dict[str, int]:
    return {"vocabulary": 1024, "layers": 2, "width": 192, "heads": 3, "inner": 384, "epochs": 14}


@dataclass(frozen=True, slots=True)
class Story:
    """Numbers of a run. Prices are nano-USD a token, `budget` the mean of a request; acts are told in requests, but for the warm-up and
    the failure, which last until the router is warm and the large model's breaker has closed again."""

    intents: int = 20
    known_intents: int = 10
    small: Mapping[str, int] = field(default_factory=_small)
    large: Mapping[str, int] = field(default_factory=_large)
    small_price: int = 20
    large_price: int = 400
    dearer: int = 2
    budget: int = 6_000
    period_s: int = 60
    period_requests: int = 900
    warm_labels: int = 60
    explore: float = 0.2
    settled_explore: float = 0.02
    learnt: int = 340
    dear: int = 220
    gap: int = 24
    returned: int = 90
    stage: int = 60
    whole: int = 80
    pace_s: float = 0.06
    warm_pace_s: float = 0.15  # each is answered twice, and dearly: no more of them than are needed
    failure_pace_s: float = 0.12
    boot_pace_s: float = (
        3.0  # while the provider starts again: it needs the cores, and an engine asked each second never rests
    )
    window_s: float = 30.0
    threads: int = 1


@dataclass(frozen=True, slots=True)
class Texts:
    """No text is in two parts but `small`'s, which are `large`'s too; `asked` is trained on by nobody."""

    known: frozenset[str]
    small: tuple[Message, ...]
    large: tuple[Message, ...]
    asked: tuple[Customer, ...]


def texts(story: Story) -> Texts:
    """The small model learns half of what is there of the known intents; the large one that and as much of the others."""
    messages = banking77.load()
    kept = set(sorted({m.intent for m in messages})[: story.intents])
    split = banking77.split([m for m in messages if m.intent in kept], story.known_intents)
    new = [m for m in split.feedback if m.intent not in split.known]
    taught = frozenset(m.text for m in new[::2])
    asked = [m for m in (*split.feedback, *split.test) if m.text not in taught]
    return Texts(
        split.known,
        split.base,
        (*split.base, *new[::2]),
        tuple(Customer(m.text, m.intent, m.intent in split.known, held_out=True) for m in asked),
    )
