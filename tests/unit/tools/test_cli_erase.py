"""`ratchet erase`: asked first, the receipt, why nothing was erased, exit codes; against the real shredder on the broker in memory."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from erasing import ANN, TENANT, World, hold, policy
from living import living
from streams_contract import until

from schemas import ids
from schemas.compliance import CommandErase
from schemas.errors import Refused
from tools.cli import erase as work
from tools.cli.bus import Bus
from tools.cli.screen import Exit, Screen

Run = Callable[..., tuple[int, str, str]]
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _no_stack(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for name in ("KAFKA_BOOTSTRAP", "RATCHET_SECRETS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RATCHET_STATE_DIR", str(tmp_path))


async def erase(world: World, *, as_json: bool = True, subject: str = ANN, tenant: str = TENANT, **more: Any) -> int:
    told: dict[str, Any] = {"by": "op", "reason": "asked", "yes": True, "wait_s": 10} | more
    return await work.erase(Screen(as_json=as_json), subject, tenant, bus=Bus(world.broker, "memory"), **told)


def said(capsys: Capture) -> dict[str, Any]:
    (line,) = capsys.readouterr().out.splitlines()
    return json.loads(line)


async def test_the_receipt(capsys: Capture) -> None:
    """Keys, cut, the day and each horizon, who was told, and how it is proven; said again it names the same receipt."""
    async with living(World()) as world:
        assert await erase(world) == Exit.DONE
        row = said(capsys)
        (command,) = [event for event in world.broker.events("commands") if isinstance(event.data, CommandErase)]
        receipt = ids.derive(command.id, "shredder", "receipt")
        assert (row["erased"], row["keys"], row["routes"], row["receipt"]) == (ANN, 1, ["cards"], receipt)
        assert row["prove"] == f"ratchet evidence prove {receipt}"
        assert row["effective_at_ms"] == max(row["horizons"].values())
        assert sum(one["offset"] for one in row["cut"]) == 5
        for _ in range(2):
            assert await erase(world) == Exit.DONE
            again = said(capsys)
            assert (again["changed"], again["receipt"], again["erasure"] != command.id) == (False, receipt, True)


async def test_for_people(capsys: Capture) -> None:
    """The same in words; the day is never earlier than it is."""
    async with living(World()) as world:
        assert await erase(world, as_json=False) == Exit.DONE
        text = capsys.readouterr().out
        for words in (
            "1 key of",
            "no legal hold",
            "requests[0] below",
            "texts in topics: until",
            "cards",
            "evidence prove",
        ):
            assert words in text
        assert await erase(world, as_json=False) == Exit.DONE
        assert "was erased before" in capsys.readouterr().out
    assert work.moment(1) == "1970-01-01 00:01 UTC"
    assert work.moment((1 << 53) - 1) == "9999-12-31 23:59 UTC"


async def test_a_hold_is_a_no_with_its_names(capsys: Capture) -> None:
    """Exit 1; nothing was erased."""
    async with living(World()) as world:
        world.broker.publish(policy(hold("court-7"), hold("tax", subject=ANN), version=2))
        assert await erase(world) == Exit.NO
        row = said(capsys)
        assert (row["refused"], row["reason"], row["holds"]) == ("erase", "hold", ["court-7", "tax"])
        assert await erase(world, as_json=False) == Exit.NO
        assert "a legal hold of tenant acme stands against it: court-7, tax" in capsys.readouterr().out


async def test_unknown_and_untold_are_a_no(capsys: Capture) -> None:
    """A subject without a key; a tenant of which nobody said what it holds. Each says what that means, or what to do;
    for the second nothing is sent: it would stand in the log as an erasure that failed."""
    async with living(World()) as world:
        assert await erase(world, subject="c" * 32) == Exit.NO
        assert said(capsys)["reason"] == "unknown"
        for _ in range(2):  # said again it is unknown as before: there is no receipt that could be named
            assert await erase(world, as_json=False, subject="c" * 32) == Exit.NO
            assert "nothing was found to erase" in capsys.readouterr().out
        sent = len(world.broker.events("commands"))
        assert await erase(world, as_json=False, tenant="umbrella") == Exit.NO
        assert len(world.broker.events("commands")) == sent
        assert "`ratchet tenant apply FILE.toml` first" in capsys.readouterr().out


async def test_settings_are_named_as_kafka_does(capsys: Capture) -> None:
    """A keyring that keeps what is removed: which setting, and who says what it must be."""
    async with living(World()) as world:
        world.broker.specs["ratchet.keyring"].config["delete.retention.ms"] = "1"  # type: ignore[index]
        assert await erase(world, as_json=False) == Exit.NO
        assert "delete.retention.ms (`ratchet doctor` says" in capsys.readouterr().out


async def test_nobody_answers(capsys: Capture) -> None:
    """The command is kept, and done when the shredder runs: exit 3."""
    world = World()
    await world.start()
    await world.runner.stop()
    await world.task
    assert await erase(world, wait_s=0.3) == Exit.AWAY
    assert said(capsys)["waiting"] == f"erase {ANN}"


async def test_a_ctrl_c_after_it_was_sent_says_so(capsys: Capture) -> None:
    """Who has interrupted it must not believe that nothing is erased."""
    world = World()
    await world.start()
    await world.runner.stop()
    await world.task
    task = asyncio.create_task(erase(world))
    await until(lambda: bool(world.broker.records("commands")))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    found = capsys.readouterr()
    assert found.out == ""
    assert "command.erase was sent and is done all the same" in found.err


async def test_it_asks_first(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """No is no, and nothing is sent; where nobody can be asked, --yes is demanded."""
    async with living(World()) as world:
        asked: list[str] = []

        def no(words: str) -> bool:
            asked.append(words)
            return False

        assert await erase(world, yes=False, ask=no) == Exit.NO
        assert said(capsys)["kind"] == "not-confirmed"
        assert ANN in asked[0]
        with pytest.raises(Refused, match="--yes says so where nobody can be asked"):
            await erase(world, yes=False)
        assert not [event for event in world.broker.events("commands") if isinstance(event.data, CommandErase)]


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["alice@example.org"], 2, "the subject's id is not accepted"),
        (["alice", "--pseudonym"], 2, "pseudonym is not accepted"),
        ([ANN, "--pseudonym", "--tenant", "no such", "--yes"], 2, "no such"),
        ([ANN, "--pseudonym", "--yes"], 3, "ratchet up"),
        ([ANN, "--pseudonym", "--yes", "--reason", "x" * 2001], 2, "2001 characters; accepted: 2000"),
    ],
)
def test_wrong_use_and_no_stack(words: list[str], code: int, told: str, cli: Run) -> None:
    """Named before anything is sent; the id itself is never repeated."""
    found, out, err = cli("erase", *words)
    assert (found, out) == (code, "")
    assert told in err
    assert "alice@" not in err
