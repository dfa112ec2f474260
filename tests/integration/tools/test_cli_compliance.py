"""`ratchet tenant` and `ratchet incident` on a real Kafka, with the agent that answers them."""

import asyncio
import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agents.evidence.compliance import Compliance
from infra.clock import SystemClock
from streams.admin import ensure_groups, ensure_topics
from streams.kafka import KafkaBroker
from streams.runner import Runner
from tools.ratchet import main

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "tenant.toml"
Run = Callable[..., tuple[int, list[dict[str, Any]]]]


@pytest.fixture
def agent(kafka: str) -> Iterator[None]:
    """The compliance agent in a thread of its own: the command line has an event loop of its own, too."""
    loop = asyncio.new_event_loop()
    runner = Runner(KafkaBroker(kafka), SystemClock())
    runner.add_fold(Compliance())
    opened = threading.Event()

    async def serve() -> None:
        await ensure_topics(kafka, 4, 1)
        await ensure_groups(kafka, runner.groups())
        opened.set()
        await runner.run()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        assert opened.wait(60)
        yield
    finally:
        asyncio.run_coroutine_threadsafe(runner.stop(), loop).result(60)
        thread.join(60)
        loop.close()


@pytest.fixture
def ratchet(kafka: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """The command line in this process: exit code and its JSON lines. No principal has a key."""
    monkeypatch.setenv("KAFKA_BOOTSTRAP", kafka)
    monkeypatch.setenv("RATCHET_STATE_DIR", str(tmp_path))
    monkeypatch.delenv("RATCHET_SECRETS", raising=False)

    def run(*words: str) -> tuple[int, list[dict[str, Any]]]:
        monkeypatch.setattr(sys, "argv", ["ratchet", *words, "--json"])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return run


def open_ones(ratchet: Run) -> list[str]:
    """The tenant's incidents that nobody has closed; the broker is shared, and others' violations are incidents too."""
    code, rows = ratchet("incident", "list")
    assert code == 0
    return [row["incident"] for row in rows if row["tenant"] == "clinic"]


@pytest.mark.usefixtures("agent")
@pytest.mark.timeout(180)
def test_a_tenant_is_configured_and_an_incident_goes_through_its_states(ratchet: Run, tmp_path: Path) -> None:
    """Apply and show; open, assess, notify, close; what is refused says why, and wrong use ends before anything is sent."""
    me = ("--as", "ann")
    assert ratchet("tenant", "show", "clinic")[0] == 1
    code, (row,) = ratchet("tenant", "apply", str(EXAMPLE), *me, "--wait", "60")
    assert (code, row["applied"], row["version"], row["without_effect"]) == (0, "clinic", 1, [])
    code, (row,) = ratchet("tenant", "show", "clinic")
    assert (code, row["author"], row["settings"]["notify_hours"]) == (0, "ann", 48)
    assert row["settings"]["exemptions"][0]["id"] == "art-9-2-h"
    code, (row,) = ratchet("tenant", "apply", str(EXAMPLE), *me)
    assert (code, row["changed"]) == (0, False)

    named = ("cli-breach", *me, "--wait", "30")
    opened = ("open", *named, "--tenant", "clinic", "--aware", "2h", "--reason", "a file was sent to the wrong person")
    code, (row,) = ratchet("incident", *opened)
    assert (code, row["event"]["type"], round(row["now"]["left_h"])) == (0, "incident.detected", 46)
    code, (row,) = ratchet("incident", "notify", *named, "--nature")
    assert (code, row["why"], row["now"]["next"]) == (1, "order", ["assess"])
    assert ratchet("incident", "assess", *named, "--personal-data", "--high-risk")[0] == 0
    code, (row,) = ratchet("incident", "notify", *named, "--nature", "--contact", "--consequences")
    assert (code, row["event"]["data"]["late"], row["now"]["missing"]) == (0, False, ["measures"])
    assert ratchet("incident", "notify", *named, "--measures")[1][0]["now"]["missing"] == []
    assert open_ones(ratchet) == ["cli-breach"]
    for word in ("tell", "contain", "close"):
        assert ratchet("incident", word, *named)[0] == 0
    assert open_ones(ratchet) == []
    code, (row,) = ratchet("incident", "show", "cli-breach")
    assert (code, row["state"], row["told"], row["late"]) == (0, "closed", True, False)
    assert [event["type"].removeprefix("incident.") for event in row["history"]] == [
        "detected", "refused", "assessed", "notified", "notified", "told", "contained", "closed",
    ]  # fmt: skip

    bad = tmp_path / "bad.toml"
    bad.write_text('tenant = "clinic"\nnotify_hour = 1\n')
    code, (row,) = ratchet("tenant", "apply", str(bad))
    assert (code, "did you mean 'notify_hours'?" in row["error"]) == (2, True)
    assert ratchet("incident", "assess", "cli-breach", "--high-risk")[0] == 2
    assert ratchet("incident", "show", "never")[0] == 1
