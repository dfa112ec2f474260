"""The ladder's state and what it emits are the same bits however often it is saved, in which process and with which hash seed."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from trusting import QUICK, Trusted, apply, case, customers, promoted, said

from agents.trust.fold import Ladder
from agents.trust.state import Part, RouteTrust
from streams.shapes import KeyState, Unchanged

CASES = 700


def events() -> list[tuple[object, str]]:
    """A life of a route: cut, certified, granted, alarmed, reset, replaced."""
    told: list[object] = [apply(trust=QUICK)]
    for number, (row, right, chance) in enumerate(customers(CASES)):
        wrong = 400 <= number < 440
        changes = {"certified": True, "label_propensity": 0.05} if number > 300 else {}
        told.append(case(number, row, not wrong and (right or chance > 0.4), **changes))
        if number in (150, 160):
            told.append(said("drill" if number == 150 else "grant"))
        if number == 500:
            told.append(promoted())
    return [(row, f"e{number}") for number, row in enumerate(told)]


def saved_each_time() -> str:
    """A digest of the state and of all that was said, the state written and read after every event."""
    ladder = Trusted(trust=QUICK)
    ladder.cells.clear()
    ladder.emitted.clear()
    for payload, event_id in events():
        ladder.take(payload, event_id)  # type: ignore[arg-type]  # payloads of several classes
    cell = ladder.cells["bank"]
    return _digest(ladder.record, cell.entries, [row.model_dump_json() for row in ladder.emitted])


def never_saved() -> str:
    """The same without a single save."""
    fold, record, entries, emitted = Ladder(), None, dict[str, Part](), list[str]()
    maker = Trusted(trust=QUICK)
    for payload, event_id in events():
        event = maker.event(payload, event_id)  # type: ignore[arg-type]
        change = fold.fold(KeyState("bank", record, dict(entries), None), event)
        record = record if isinstance(change.record, Unchanged) else change.record
        entries |= change.put
        for name in change.drop:
            entries.pop(name, None)
        emitted += [emit.payload.model_dump_json() for emit in change.emits]  # type: ignore[union-attr]
    assert record is not None
    return _digest(record, entries, emitted)


def _digest(record: RouteTrust, entries: dict[str, Part], emitted: list[str]) -> str:
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
    ladder = Trusted(trust=QUICK)
    for payload, event_id in events()[1:]:
        ladder.take(payload, event_id)  # type: ignore[arg-type]
    reasons = " ".join(row.reason for row in ladder.emitted if row.TYPE == "trust.changed")
    for word in ("certified", "grant", "alarm", "model.promoted"):
        assert word in reasons


if __name__ == "__main__":
    print(never_saved())  # noqa: T201  this file is also the other process
