"""The pool of engines grows and shrinks on a real Ray cluster, under load, and is found by the next process."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import ray
from ray.util import list_named_actors

from infra.cluster import NAMESPACE, EngineSettings, RayEngines, connect, disconnect
from infra.engine import ArmSpec, Generation
from infra.engine_scripted import Script

ONE = ArmSpec("one", "sha256:" + "b" * 64)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """A private cluster with room for three engines."""
    connect("local", num_cpus=3)
    yield
    disconnect()


@pytest.fixture
def settings(tmp_path: Path, request: pytest.FixtureRequest) -> EngineSettings:
    return EngineSettings(
        kind="scripted",
        store_root=tmp_path / "store",
        public_keys={},
        gpus=0,
        name=str(request.node.name),
        script=Script(latency_ms=(5, 10), hang_pattern="hang"),
        max_replicas=4,
    )


@pytest.fixture
async def engines(settings: EngineSettings) -> AsyncIterator[RayEngines]:
    made = RayEngines(settings)
    await made.ensure([ONE])
    yield made
    await made.shutdown()


async def answering(engines: RayEngines) -> set[str]:
    """Who answers a burst of calls."""
    made = await asyncio.gather(*(engines.generate("one", f"text {i}", f"r{i}", 60) for i in range(60)))
    return {answer.replica.rsplit("-", 1)[1] for answer in made}


async def until(engines: RayEngines, wished: int, serving: int) -> None:
    """Wish until so many serve, as inference does."""
    async with asyncio.timeout(100):
        while True:
            if await engines.scale(wished):
                await engines.ensure([ONE])
            if len(await engines.about()) == serving:
                return
            await asyncio.sleep(0.1)


def running(settings: EngineSettings) -> set[str]:
    """The named actors of this pool that Ray knows."""
    return {
        row["name"]
        for row in list_named_actors(all_namespaces=True)
        if row["namespace"] == NAMESPACE and row["name"].startswith(settings.name + "-")
    }


async def gone(settings: EngineSettings, *numbers: int) -> None:
    async with asyncio.timeout(100):
        while running(settings) & {f"{settings.name}-{number}" for number in numbers}:  # noqa: ASYNC110  Ray ends them
            await asyncio.sleep(0.1)


async def test_it_grows_serves_and_shrinks(engines: RayEngines, settings: EngineSettings) -> None:
    """Three replicas answer what one did, each with the arm proven live; then one again, and the others are gone."""
    assert await answering(engines) == {"0"}
    await until(engines, 3, 3)
    outcomes = await engines.ensure([ONE])
    assert [outcome.live for outcome in outcomes] == [True] * 3
    assert await answering(engines) == {"0", "1", "2"}
    await until(engines, 1, 1)
    assert await answering(engines) == {"0"}
    await gone(settings, 1, 2)


async def test_what_is_under_way_is_answered_before_a_replica_ends(
    engines: RayEngines, settings: EngineSettings
) -> None:
    """No call fails while the pool shrinks; a replica that a call holds waits for it."""
    await until(engines, 2, 2)
    held = ray.get_actor(f"{settings.name}-1", namespace=NAMESPACE)
    other = held.generate.remote("one", "hang", "another process", 15.0)
    await asyncio.sleep(0.3)
    calls = [asyncio.create_task(engines.generate("one", f"text {i}", f"r{i}", 60)) for i in range(40)]
    await engines.scale(1)
    assert all(isinstance(made, Generation) for made in await asyncio.gather(*calls))
    assert f"{settings.name}-1" in running(settings)
    assert (await other)[0] == "unavailable", "answered by its own deadline, not by the end of the replica"
    await gone(settings, 1)


async def test_the_next_process_finds_what_runs(engines: RayEngines, settings: EngineSettings) -> None:
    """The same actors join it with what they have loaded; what is not wanted any more ends."""
    await until(engines, 3, 3)
    before = {row["replica"]: row["pid"] for row in await engines.about()}
    await engines.close()
    again = RayEngines(replace(settings))
    await again.ensure([ONE])
    await until(again, 2, 2)
    assert {row["replica"]: row["pid"] for row in await again.about()} == dict(sorted(before.items())[:2])
    await gone(settings, 2)
    await again.shutdown()
    await gone(settings, 0, 1)


async def test_what_finds_no_room_holds_up_nothing(engines: RayEngines, settings: EngineSettings) -> None:
    """One of four engines has no CPU: the others are loaded and answer, and once the wish is taken back the first three do."""
    await until(engines, 4, 3)
    await asyncio.sleep(0.5)
    async with asyncio.timeout(100):
        outcomes = await engines.ensure([ONE, ArmSpec("two", ONE.base)])
    assert sum(outcome.live for outcome in outcomes) == 6
    assert len(await answering(engines)) == 3
    await engines.scale(3)
    await gone(settings, 3)
    await until(engines, 3, 3)
    assert await answering(engines) == {"0", "1", "2"}
