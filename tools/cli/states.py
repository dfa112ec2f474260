"""A Fold's own state, rebuilt from its changelog: what the agent would start from after a crash. Reads only."""

from schemas.topics import state_topic
from streams.port import TP
from streams.shapes import AnyFold
from streams.state import MemoryState, split_key
from streams.wire import partition_of
from tools.cli.bus import Bus


async def state_of(bus: Bus, fold: AnyFold, key: str | None = None) -> MemoryState:
    """All keys, or one: then only its partition is read."""
    name, state = state_topic(fold.name), MemoryState(fold)
    count = (await bus.partitions([name]))[name]
    tps: list[TP] = [(name, n) for n in (range(count) if key is None else (partition_of(key.encode(), count),))]
    for record in await bus.read(await bus.starts_of(tps)):
        if key is None or split_key(record.key or b"")[0] == key:
            state.load(record)
    for _ in state.settle():
        pass
    return state
