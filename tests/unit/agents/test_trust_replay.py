"""The ladder's state and what it emits are the same bits however often it is saved, in which process and with which hash seed."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from folding import Folding
from trusting import NOW, QUICK, apply, case, customers, promoted, said

from agents.trust.fold import Ladder
from agents.trust.state import Part, RouteTrust
from schemas.events import TrustChanged
from schemas.payload import Payload
from streams.shapes import Emit, KeyState, Tick, Unchanged

CASES = 700


def at_ms(number: int) -> int:
    """Event time after so many events: 3 s each, so that several cases have their turn together."""
    return NOW + 3_000 * number


def events() -> list[tuple[Payload, str]]:
    """A life of a route: cut, certified, granted, alarmed, reset, replaced. Cases come one or two after their turn among others."""
    told: list[Payload] = [apply(trust=QUICK)]
    for number, (row, right, chance) in enumerate(customers(CASES)):
        wrong = 400 <= number < 440
        assigned_ms = at_ms(number - number % 3)
        changes: dict[str, Any] = {"assigned_at_ms": assigned_ms, "window_end_ms": assigned_ms}
        changes |= {"certified": True, "label_propensity": 0.05} if number > 300 else {}
        told.append(case(number, row, not wrong and (right or chance > 0.4), **changes))
        if number in (150, 160):
            told.append(said("drill" if number == 150 else "grant"))
        if number == 500:
            told.append(promoted())
    return [(row, f"e{number}") for number, row in enumerate(told)]


def saved_each_time() -> str:
    """A digest of the state and of all that was said, the state written and read after every event."""
    ladder = Folding(Ladder())
    for number, (payload, event_id) in enumerate(events()):
        ladder.take(payload, event_id)
        ladder.tick(at_ms(number))
    cell = ladder.cells["bank"]
    assert isinstance(cell.record, RouteTrust)
    return _digest(cell.record, cell.entries, [row.model_dump_json() for row in ladder.emitted])


def never_saved() -> str:
    """The same without a single save."""
    fold, maker = Ladder(), Folding(Ladder())
    state: KeyState[RouteTrust, Part] = KeyState("bank", None, {}, None)
    emitted: list[str] = []
    for number, (payload, event_id) in enumerate(events()):
        tick = Tick(at_ms(number), f"t{number}", "")
        for event in (maker.event(payload, event_id), tick):
            if event is tick and (state.due_ms is None or state.due_ms > tick.at_ms):
                continue
            change = fold.fold(state, event)
            entries = {name: part for name, part in {**state.entries, **change.put}.items() if name not in change.drop}
            record = state.record if isinstance(change.record, Unchanged) else change.record
            due_ms = state.due_ms if isinstance(change.due_ms, Unchanged) else change.due_ms
            state = KeyState("bank", record, entries, due_ms)
            emitted += [emit.payload.model_dump_json() for emit in change.emits if isinstance(emit, Emit)]
    assert state.record is not None
    return _digest(state.record, state.entries, emitted)


def _digest(record: RouteTrust, entries: Mapping[str, Part], emitted: list[str]) -> str:
    rows = [record.model_dump_json(), *(entries[name].model_dump_json() for name in sorted(entries)), *emitted]
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def test_saving_after_every_event_changes_no_bit() -> None:
    """A state that was written and read 700 times, and one that never was; and much has happened in it."""
    assert saved_each_time() == never_saved()


def test_another_process_with_another_hash_seed_comes_to_the_same_bits() -> None:
    """Nothing depends on the order of a set or on what ran before."""
    here = never_saved()
    support = str(Path(__file__).resolve().parents[2] / "support")
    root = str(Path(__file__).resolve().parents[3])
    for seed in ("1", "2"):
        env = {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join((root, support))}
        found = subprocess.run(
            [sys.executable, __file__], env=env, cwd=root, capture_output=True, text=True, check=True, timeout=60
        )
        assert found.stdout.strip() == here


def test_the_life_of_the_route_is_worth_replaying() -> None:
    """It holds a cut, certificates, an enforcement, an alarm and a replacement."""
    ladder = Folding(Ladder())
    for number, (payload, event_id) in enumerate(events()):
        ladder.take(payload, event_id)
        ladder.tick(at_ms(number))
    reasons = " ".join(row.reason for row in ladder.of(TrustChanged))
    for word in ("certified", "grant", "alarm", "model.promoted"):
        assert word in reasons


if __name__ == "__main__":
    print(never_saved())  # noqa: T201  this file is also the other process
