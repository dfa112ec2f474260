"""Counting crashes: which of several counts, and that a crash ends the process whatever becomes of the count."""

import asyncio
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import pytest
from streams_contract import FAST, Echo, request, until

from infra.clock import SystemClock
from schemas.payload import Payload
from streams.crashes import POISON_AFTER, Crashes
from streams.lane import AgentCrashed, Notice
from streams.memory import MemoryBroker
from streams.runner import Runner
from streams.shapes import Event, Out, Place

POISON = "poison"
PLACE = Place("ratchet.requests", 0, 7)


class Fragile(Echo):
    async def __call__(self, event: Event[Payload]) -> Sequence[Out]:
        if event.data.model_dump()["messages"][0]["content"] == POISON:
            raise ZeroDivisionError
        return await super().__call__(event)


def runner_of(broker: MemoryBroker, folder: Path, seen: list[Notice] | None = None) -> Runner:
    made = Runner(
        broker,
        SystemClock(),
        settings=FAST,
        state_dir=folder,
        observe=(lambda n: None) if seen is None else seen.append,
    )
    made.add_transform(Fragile("probe"))
    return made


def file_of(folder: Path) -> Path:
    return folder / "crashes" / "probe-0.json"


async def test_of_two_poison_records_in_one_window_the_first_halts_the_lane(tmp_path: Path) -> None:
    """Each crash counts once per process, so that the same place comes to three; what stands before it is answered."""
    broker, seen = MemoryBroker(1), list[Notice]()
    for text in ("fine", POISON, POISON, "behind"):
        broker.publish(request("k", text))
    for _ in range(POISON_AFTER):
        with pytest.raises(AgentCrashed, match=r"ratchet\.requests\[0\]@1"):
            await asyncio.wait_for(runner_of(broker, tmp_path).run(), 5)
    runner = runner_of(broker, tmp_path, seen)
    task = asyncio.create_task(runner.run())
    await until(lambda: any(notice.kind == "halted" for notice in seen))
    await until(lambda: len(broker.records("answers")) == 1)
    await runner.stop()
    await task
    assert [notice.text for notice in seen if notice.kind == "halted"] == ["ratchet.requests[0]@1"]
    assert len(broker.records("answers")) == 1  # by this process or by one that crashed after it


async def test_a_crash_that_cannot_be_counted_ends_the_process_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk that takes no file costs the count, and both errors are said."""
    file_of(tmp_path).with_suffix(".new").mkdir(parents=True)  # where the next count would be written
    broker = MemoryBroker(1)
    broker.publish(request("k", POISON))
    made = runner_of(broker, tmp_path)
    with pytest.raises(AgentCrashed, match=r"ratchet\.requests\[0\]@0") as error:
        await asyncio.wait_for(made.run(), 5)
    assert isinstance(error.value.__cause__, ZeroDivisionError)
    assert "the crash at ratchet.requests[0]@0 is not counted" in caplog.text


@pytest.mark.parametrize("damage", ["", "{", "[]", "null", '{"place": "x"}', '{"place": "x", "count": null}'])
def test_a_damaged_count_is_none(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    """It halts nothing, it is said once, and the next crash is the first."""
    known = Crashes(tmp_path, "probe", 0)
    known.count(PLACE)
    file_of(tmp_path).write_text(damage)
    with caplog.at_level(logging.WARNING, logger="streams"):
        assert known.halted_at() is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert str(file_of(tmp_path)) in caplog.text
    for _ in range(POISON_AFTER):
        assert known.halted_at() is None
        known.count(PLACE)
    assert known.halted_at() == str(PLACE)


def test_a_count_is_replaced_whole(tmp_path: Path) -> None:
    """A write that is cut off leaves the former count: only the file beside it is half written."""
    known = Crashes(tmp_path, "probe", 0)
    known.count(PLACE)
    whole = file_of(tmp_path).read_text()
    file_of(tmp_path).with_suffix(".new").mkdir()
    with pytest.raises(OSError, match="directory"):
        known.count(PLACE)
    assert file_of(tmp_path).read_text() == whole
    assert json.loads(whole) == {"place": str(PLACE), "count": 1}
