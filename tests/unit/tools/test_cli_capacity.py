"""`ratchet capacity`: the newest policy of a route, and the same offline from a file of series."""

import json
from pathlib import Path

import pytest
from estimating import Estimated
from typer.testing import CliRunner

from infra.clock import SystemClock
from schemas import codec, ids
from schemas.policies import PolicyCapacity
from streams.memory import MemoryBroker
from streams.port import TopicSpec
from tools.cli.bus import Bus
from tools.cli.capacity import read, shown
from tools.cli.screen import Exit, Screen
from tools.ratchet import app


def policies() -> list[PolicyCapacity]:
    """What the estimator says of a route with some load."""
    world = Estimated()
    for _ in range(5):
        world.bucket(20, shadows=("b",))
    return world.of(PolicyCapacity)


async def test_the_newest_policy_of_the_route_is_read() -> None:
    """An unknown route has none."""
    broker = MemoryBroker(3, clock=SystemClock())
    await broker.admin().start()
    await broker.admin().create([TopicSpec("ratchet.policies", 3, 1, {})])
    told = policies()
    async with Bus(broker, "memory") as bus:
        for number, policy in enumerate(told):
            event_id = ids.derive(f"p{number}", "test", 0)
            row = codec.encode(policy, event_id=event_id, source="t", traceparent=ids.trace_parent(None, event_id))
            await bus.publish([("ratchet.policies", row)])
        assert await read(bus, "bank") == told[-1]
        assert await read(bus, "other") is None


def test_it_is_shown_as_a_table_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Every arm with its reason."""
    policy = policies()[-1]
    assert shown(Screen(as_json=False), "bank", policy) == Exit.DONE
    page = capsys.readouterr().out
    assert f"version {policy.version}, of the last 300 s" in page
    assert "calls/s" in page
    assert shown(Screen(as_json=True), "bank", policy) == Exit.DONE
    told = json.loads(capsys.readouterr().out)
    assert told["known"] is True
    assert PolicyCapacity.model_validate(told) == policy


@pytest.mark.parametrize("as_json", [True, False])
def test_none_yet_is_a_no(capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    """Exit code 1."""
    assert shown(Screen(as_json=as_json), "bank", None) == Exit.NO
    assert "bank" in capsys.readouterr().out


def series(folder: Path) -> Path:
    """Two calls a second over two minutes."""
    rows = [
        f'vllm:request_success_total{{model_name="base"}} {20 * n} {1_700_000_000_000 + 10_000 * n}' for n in range(13)
    ]
    file = folder / "series.prom"
    file.write_text("\n".join(rows) + "\n")
    return file


def test_a_file_of_series_needs_no_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same table and the same fields; a bad file is used wrongly."""
    monkeypatch.chdir(tmp_path)
    run = CliRunner()
    found = run.invoke(app, ["capacity", "bank", "--series", str(series(tmp_path)), "--json"])
    assert found.exit_code == 0
    (arm,) = json.loads(found.stdout)["arms"]
    assert (arm["arm"], arm["rate_milli"], arm["replicas"]) == ("base", 2000, 1)
    page = run.invoke(app, ["capacity", "bank", "--series", str(tmp_path / "series.prom"), "--slo-ms", "500"])
    assert page.exit_code == 0
    assert "not measured yet" in page.stdout
    assert run.invoke(app, ["capacity", "bank", "--series", str(tmp_path / "none")]).exit_code != 0
    assert run.invoke(app, ["capacity", "bank", "--slo-ms", "5"]).exit_code != 0
