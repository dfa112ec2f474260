"""`ratchet up --secure --vault` as a user meets it: agents work over TLS, drift is told, no secret lies where it does not belong."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import pytest

from infra.settings import Settings
from schemas.errors import Refused
from streams.acl import Acl, Right, principal_of
from streams.kafka_acl import KafkaAccess
from tools.access import principals
from tools.cli import acl, commands, submit
from tools.cli import status as status_command
from tools.cli.screen import Exit, Screen
from tools.doctor import run_checks
from tools.stack import down, status, up
from tools.stack.processes import tagged
from tools.stack.secure import IN_THE_CLEAR, SECURED, administration, open_security, with_credentials
from tools.stack.stack import Record
from tools.stack.vault import VaultServer

ROUTE = Path(__file__).parents[3] / "docs" / "examples" / "banking.toml"
AGENTS = (("router", "trust"), ("cases", "ladder", "judge"), ("inference",))
PROCESSES = [",".join(group) for group in AGENTS]


def ran(
    command: Callable[[Screen], Awaitable[int]], capsys: pytest.CaptureFixture[str]
) -> tuple[int, list[dict[str, object]]]:
    """A command's exit code and its JSON lines."""
    capsys.readouterr()
    code = asyncio.run(command(Screen(as_json=True)))
    return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def passwords(settings: Settings) -> dict[str, str]:
    """The passwords of the Kafka users, out of Vault by its root."""
    folder = settings.state_dir / "data" / "vault"
    addr = Record.model_validate_json((settings.state_dir / "stack.json").read_bytes()).services["vault"].address
    server = VaultServer(addr=addr, root_token=json.loads((folder / "keys.json").read_bytes())["root_token"])
    users = principals(AGENTS)
    return {user: server.call("GET", f"ratchet/data/kafka/{user}")["data"]["data"]["password"] for user in users}


def test_a_secured_stack_from_up_to_down(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """Requests are answered over TLS; drift is told and mended; a password rotates; down and up again keep users and data."""
    where = up(settings=settings, secure=True, vault=True, agents=AGENTS, ray=False)
    assert where["transport"] == SECURED
    tag = Record.model_validate_json((settings.state_dir / "stack.json").read_bytes()).tag

    def apply(screen: Screen) -> Awaitable[int]:
        return commands.apply(screen, ROUTE, by=None, reason="", wait_s=30)

    def ask(screen: Screen) -> Awaitable[int]:
        return submit.run(
            screen,
            "where is my card",
            None,
            route="banking.intent",
            session=None,
            subject=None,
            tenant=None,
            wait_s=30,
            by=None,
        )

    def check(screen: Screen) -> Awaitable[int]:
        return acl.check(screen, processes=PROCESSES)

    assert ran(apply, capsys)[0] == Exit.DONE
    code, rows = ran(ask, capsys)
    assert (code, rows[0]["outcome"]) == (Exit.DONE, "released")
    found = status_command.gather()
    assert (found["transport"], found["lag_error"]) == (SECURED, "")
    assert found["lag"]["router"] <= 1  # the marker behind the answer's score takes an offset
    checks = {row.name: row for row in run_checks()}
    assert (checks["transport"].ok, checks["topics"].ok, checks["kafka"].ok) == (True, True, True)
    assert ran(check, capsys) == (
        Exit.DONE,
        [{"same": True, "missing": 0, "extra": 0, "everyone": 0, "other": 0, "peculiar": 0}],
    )

    asyncio.run(drift(settings))
    code, rows = ran(check, capsys)
    assert code == Exit.NO
    told = [(row["is"], row["user"], row["operation"], row["name"]) for row in rows[:-1]]
    assert told == [
        ("missing", "judge", "write", "ratchet.promotions"),
        ("extra", "judge", "read", "ratchet.keyring"),
        ("other", "team", "read", "ratchet.answers"),
    ]
    before = passwords(settings)

    def mend(screen: Screen) -> Awaitable[int]:
        return acl.apply(screen, processes=PROCESSES, rotate=["operator"])

    assert ran(mend, capsys) == (Exit.DONE, [{"users": len(before), "changed": 2, "rotated": ["operator"]}])
    assert ran(check, capsys)[0] == Exit.DONE  # by the new password
    after = passwords(settings)
    assert {user for user in before if before[user] != after[user]} == {"operator"}

    assert_hidden(settings, tag, set(before.values()) | set(after.values()))
    assert up(settings=settings, secure=True, vault=True, agents=AGENTS, ray=False) == where
    assert "agents" in down(settings=settings)
    assert tagged(tag) == []
    again = up(settings=settings, secure=True, vault=True, agents=(), ray=False)
    assert again["kafka"] == where["kafka"]
    assert passwords(settings) == after
    assert ran(check, capsys)[0] == Exit.DONE


async def drift(settings: Settings) -> None:
    """Take a right away, give another, and one to somebody else."""
    where = administration(settings.state_dir)
    assert where is not None
    async with KafkaAccess(*where) as access:
        await access.withdraw([Acl("User:judge", Right("topic", "ratchet.promotions", "write"))])
        await access.allow([Acl("User:judge", Right("topic", "ratchet.keyring", "read"))])
        await access.allow([Acl("User:team", Right("topic", "ratchet.answers", "read"))])


def assert_hidden(settings: Settings, tag: str, secret: set[str]) -> None:
    """No password in any file of the state folder, in the arguments or environment of the stack's processes; keys are their owner's."""
    looked = 0
    for file in settings.state_dir.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert not [word for word in secret if word.encode() in content], file
            if b"PRIVATE KEY" in content or file.name in {"env", "stack.json", "agents.json"}:
                assert file.stat().st_mode & 0o077 == 0, file
                looked += 1
    assert looked == 6
    for process in map(psutil.Process, (row.pid for row in tagged(tag))):
        said = " ".join([*process.cmdline(), *process.environ().values()])
        assert not [word for word in secret if word in said], process


def test_a_stack_is_not_made_secure_while_it_runs(settings: Settings) -> None:
    """What runs in the clear is refused `--secure`, with what to do; up, status and doctor say that it is open."""
    where = up(settings=settings, agents=(), prepare=lambda _: None, ray=False)
    assert where["transport"] == status_command.gather()["transport"] == IN_THE_CLEAR
    told = next(check for check in run_checks() if check.name == "transport")
    assert IN_THE_CLEAR in told.detail
    with pytest.raises(Refused, match=r"whose Kafka is open.*`ratchet down`.*--secure"):
        up(settings=settings, secure=True, agents=(), ray=False)
    assert status(settings).state == "whole"


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [("kafka_bootstrap", "127.0.0.1:1", "KAFKA_BOOTSTRAP"), ("kafka_user", "all", "RATCHET_KAFKA_USER=all")],
)
def test_what_does_not_go_with_secure_is_refused(settings: Settings, field: str, value: str, said: str) -> None:
    """A broker of the user's own, and one user for all processes: named before anything is started."""
    with pytest.raises(Refused, match=said):
        up(settings=settings.model_copy(update={field: value}), secure=True, agents=(), ray=False)
    assert status(settings).state == "absent"


async def test_a_user_without_a_password_is_named(settings: Settings) -> None:
    """The secret, its store and the command that makes it; the name of the process's user is that of its agents."""
    own = settings.model_copy(update={"kafka_security": "sasl_ssl", "kafka_ca": settings.state_dir / "ca.pem"})
    settings.state_dir.mkdir()
    assert with_credentials(own) is own
    with pytest.raises(Refused, match=r"kafka/router-trust.*'router-trust' cannot prove itself.*ratchet acl apply"):
        await open_security(own, principal_of(("router", "trust")))
