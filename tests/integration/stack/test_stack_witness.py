"""The witness that `ratchet up` starts: apart from the log, told of the log's keys, kept alive, and in every policy file."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cryptography
import psutil
import pytest
from witnessed import WITNESSES

from infra.notary import verify
from infra.settings import Settings, load
from schemas.tlog.policy import Policy, open_checkpoint, parse_policy
from streams.kafka import KafkaBroker
from streams.port import Outgoing
from tools.demo.audit import VERIFIER, audit
from tools.doctor import Check, run_checks
from tools.stack import down, status, up, witness
from tools.stack.ports import free_ports
from tools.stack.processes import wait_until
from tools.stack.roles import EVIDENCE_ROLE, ROLES, WITNESS_ROLE
from tools.stack.stack import Record
from tools.stack.supervise import ChildState, read_state
from tools.stack.vault import VaultServer

EVIDENCE = (("evidence",),)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """A state folder of the test's own, under a user's environment that has something to give away."""
    monkeypatch.setenv("SOMEBODYS_PASSWORD", "seen")
    own = Settings(state_dir=tmp_path / "state", cache_dir=load().resolved().cache_dir, partitions=1)
    yield own
    if (own.state_dir / "stack.json").exists():
        down(settings=own)


def child(settings: Settings) -> ChildState:
    """What the supervisor says of the witness."""
    state = read_state(settings.state_dir / "agents-state.json")
    assert state is not None
    return state.children["witness"]


def read(settings: Settings, file: str) -> Policy:
    """A policy file of the state folder."""
    return parse_policy((settings.state_dir / file).read_text())


def seen(settings: Settings) -> int:
    """How many entries of the log the witness has cosigned."""
    problems, said = witness.problems_of(settings.state_dir)
    assert not problems, problems
    return int(said.split()[-2]) if said.endswith("entries") else 0


def check(settings: Settings) -> Check:
    """What doctor says of it."""
    env = load({}, settings.state_dir / "env").resolved()
    return next(row for row in run_checks(env) if row.name == "witness")


def test_the_log_is_watched_from_up_to_down(settings: Settings) -> None:
    """It cosigns what the log writes, has nothing of the log's, comes back after a kill, remembers over down and up; a second up joins."""
    where = up(settings=settings, agents=EVIDENCE, ray=False)
    asked = read(settings, "witnesses.policy").witnesses["local"]
    assert asked.key.name == "dev.ratchet/local/witness"
    assert where["evidence witness"].startswith(f"{asked.url} ")
    assert where["evidence policy"] == str(settings.state_dir / "evidence.policy")
    assert asked.key in [one.key for one in read(settings, "evidence.policy").witnesses.values()]
    assert read(settings, "evidence.policy").quorum != "none"
    asyncio.run(happen(settings))
    wait_until(lambda: seen(settings) > 0, None, timeout_s=30, what="the first cosignature")
    assert check(settings).ok, check(settings)
    assert status(settings).evidence == {name: where[f"evidence {name}"] for name in ("policy", "witness")}

    first = child(settings)
    given = environment(settings, "witness")
    assert not given.keys() & {"KAFKA_BOOTSTRAP", "REDIS_URL", "SOMEBODYS_PASSWORD"}
    assert given["RATCHET_STATE_DIR"] == str(settings.state_dir / "witness")
    opened = [file.path for file in psutil.Process(first.pid).open_files()]
    assert not [path for path in opened if path.startswith(str(settings.state_dir / "evidence"))]
    assert (settings.state_dir / "witness").stat().st_mode & 0o077 == 0

    psutil.Process(first.pid).kill()
    wait_until(lambda: child(settings).starts > first.starts, None, timeout_s=30, what="the restart")
    wait_until(lambda: witness.answers(asked.url or ""), None, timeout_s=30, what="the witness")
    before = seen(settings)
    asyncio.run(happen(settings))
    wait_until(lambda: seen(settings) > before > 0, None, timeout_s=30, what="the next cosignature")
    assert up(settings=settings, agents=EVIDENCE, ray=False) == where

    pid = child(settings).pid
    assert "agents" in down(settings=settings)
    assert not psutil.pid_exists(pid)
    up(settings=settings, agents=EVIDENCE, ray=False)
    assert read(settings, "witnesses.policy").witnesses["local"] == asked
    before = seen(settings)
    asyncio.run(happen(settings))
    wait_until(lambda: seen(settings) > before > 0, None, timeout_s=30, what="the cosignature after down and up")


async def happen(settings: Settings) -> None:
    """Something to record: a request."""
    address = Record.model_validate_json((settings.state_dir / "stack.json").read_bytes()).services["kafka"].address
    producer = KafkaBroker(address).transactional("test-upstream")
    await producer.start()
    await producer.begin()
    payload = {"tenant": "acme", "route": "r", "request_id": "q", "at_ms": 1, "messages": [{"content": "hush"}]}
    headers = (("ce_id", b"id"), ("ce_type", b"ratchet.request.submitted.v1"))
    for future in await producer.send("ratchet.requests", 0, [Outgoing(b"q", json.dumps(payload).encode(), headers)]):
        await future
    await producer.commit()
    await producer.stop(2.0)


def test_in_vault_it_has_a_key_of_its_own_and_hears_of_the_logs_next(settings: Settings) -> None:
    """It logs in by its own role, anew at each start; after a rotation the next up tells it of the log's new key."""
    up(settings=settings, agents=EVIDENCE, ray=False, vault=True)
    assert read(settings, "witnesses.policy").witnesses["local"].key.name == "ratchet/local/witness"
    before = read(settings, "witness/logs.policy").logs
    assert [log.name for log in before] == ["ratchet/local"]
    assert (role_of(settings, "witness"), role_of(settings, "evidence")) == (WITNESS_ROLE, EVIDENCE_ROLE)
    assert not (settings.state_dir / "witness" / "key").exists()

    first = child(settings)
    psutil.Process(first.pid).kill()
    wait_until(lambda: child(settings).starts > first.starts, None, timeout_s=30, what="the restart")
    url = read(settings, "witnesses.policy").witnesses["local"].url or ""
    wait_until(lambda: witness.answers(url), None, timeout_s=30, what="the witness")

    vault_of(settings).call("POST", "transit/keys/notary/rotate")
    said: list[str] = []
    up(settings=settings, agents=EVIDENCE, ray=False, vault=True, say=said.append)
    assert said == ["told the witness and auditors of the log's new key", "joined the stack that runs"]
    after = read(settings, "witness/logs.policy").logs
    assert (after[:1], len(after)) == (before, 2)
    assert read(settings, "evidence.policy").logs == after


def test_the_logs_key_is_rotated_as_the_manual_says(settings: Settings) -> None:
    """Rotate, down, up: both keys sign, and the witness goes along. Retire the old one, down, up: the new one signs alone.

    All that was published is accepted by the policy file of today.
    """
    published: list[bytes] = []

    def signers(count: int) -> list[list[int]]:
        """Which of the key's versions have signed each of the next checkpoints, as the auditors' policy file accepts it."""
        up(settings=settings, agents=EVIDENCE, ray=False, vault=True)
        file, known = settings.state_dir / "evidence" / "checkpoint", read(settings, "evidence.policy")
        found: list[list[int]] = []
        for _ in range(count):
            before = file.read_bytes() if file.exists() else b""
            asyncio.run(happen(settings))
            wait_until(lambda b=before: file.exists() and file.read_bytes() != b, None, timeout_s=60, what="the next")
            published.append(file.read_bytes())
            keys = open_checkpoint(published[-1], known, verify).log_keys
            found.append([known.logs.index(key) + 1 for key in keys])
        down(settings=settings)
        return found

    def change(path: str, body: object = None) -> None:
        """As the operator of the Vault, which must run for that."""
        up(settings=settings, agents=(), ray=False, vault=True)
        vault_of(settings).call("POST", path, body)
        down(settings=settings)

    assert signers(1) == [[1]]
    change("transit/keys/notary/rotate")
    assert signers(2)[-1] == [1, 2]  # announced before, under the old one
    change("transit/keys/notary/config", {"min_encryption_version": 2})
    assert signers(1) == [[2]]
    today = read(settings, "evidence.policy")
    sizes = [open_checkpoint(note, today, verify).checkpoint.size for note in published]
    assert sizes == sorted(set(sizes))


def test_witnesses_that_are_named_are_used_and_none_is_started(settings: Settings, tmp_path: Path) -> None:
    """The log is given the user's file; doctor says which of its witnesses does not answer."""
    theirs = tmp_path / "theirs.policy"
    (port,) = free_ports(1)
    theirs.write_text(f"witness far {WITNESSES['w1'].key} http://127.0.0.1:{port}\nquorum none\n")
    given = settings.model_copy(update={"witnesses": theirs})
    where = up(settings=given, agents=EVIDENCE, ray=False)
    assert where["evidence witness"] == f"those of {theirs}"
    assert set(status(given).processes) == {"evidence"}
    assert environment(settings, "evidence")["RATCHET_WITNESSES"] == str(theirs)
    assert not (settings.state_dir / "witnesses.policy").exists()
    assert read(settings, "evidence.policy").witnesses["far"].key == WITNESSES["w1"].key
    found = check(settings)
    assert (found.ok, found.detail) == (False, f"witness far does not answer at http://127.0.0.1:{port}")


def test_an_auditor_takes_a_bundle_away(settings: Settings, tmp_path: Path) -> None:
    """A request is followed to its entry's proof; the bundle verifies where there is nothing but Python and `cryptography`.

    With one bit changed, or one file dropped, it is refused there.
    """
    up(settings=settings, agents=EVIDENCE, ray=False, vault=True)
    asyncio.run(happen(settings))
    wait_until(lambda: seen(settings) > 0, None, timeout_s=30, what="the first cosignature")
    out, policy = tmp_path / "bundle", tmp_path / "policy"
    said = audit(settings, "q", out)
    assert (said["exit"], said["problems"], said["trust"], said["kind"]) == (0, [], "given", "full")
    assert (said["followed"]["type"], said["refused"] != "") == ("request.submitted", True)
    policy.write_bytes((settings.state_dir / "evidence.policy").read_bytes())
    down(settings=settings)

    proof = next((out / "proofs").iterdir())
    assert proof.stem == said["followed"]["event"]
    assert alone(tmp_path, out, policy) == (0, "VALID")
    for path in (proof, out / "oscal.json", out / "manifest.json", *(out / "tile").rglob("000*/*")):
        data = path.read_bytes()
        path.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
        assert alone(tmp_path, out, policy) == (1, "NOT VALID"), path
        path.unlink()
        assert alone(tmp_path, out, policy) == (1, "NOT VALID"), path
        path.write_bytes(data)
    assert alone(tmp_path, out, policy) == (0, "VALID")


def alone(folder: Path, bundle: Path, policy: Path) -> tuple[int, str]:
    """Exit code and last line of the verifier, under a Python that has no package but `cryptography` and what it needs."""
    packages = folder / "packages"
    if not packages.exists():
        packages.mkdir()
        site = Path(cryptography.__file__).parents[1]
        for name in ("cryptography", "cffi", *(path.name for path in site.glob("_cffi_backend*"))):
            (packages / name).symlink_to(site / name)
    program = (
        f"import sys, runpy; sys.path.append({str(packages)!r}); sys.argv[1:] = {[str(bundle), '--policy', str(policy)]!r}; "
        f"runpy.run_path({str(VERIFIER)!r}, run_name='__main__')"
    )
    command = [sys.executable, "-I", "-S", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout.splitlines()[-1]


def environment(settings: Settings, name: str) -> dict[str, str]:
    """What a child of the supervisor was given."""
    state = read_state(settings.state_dir / "agents-state.json")
    assert state is not None
    return psutil.Process(state.children[name].pid).environ()


def role_of(settings: Settings, name: str) -> str:
    """The role by whose id a child of the supervisor logged in: what Vault calls it, not what the child was told."""
    server, wanted = vault_of(settings), environment(settings, name)["RATCHET_VAULT_ROLE_ID"]
    return next(role for role in ROLES if server.role_id(role) == wanted)


def vault_of(settings: Settings) -> VaultServer:
    """The stack's own, by its root token."""
    addr = Record.model_validate_json((settings.state_dir / "stack.json").read_bytes()).services["vault"].address
    keys = json.loads((settings.state_dir / "data" / "vault" / "keys.json").read_bytes())
    return VaultServer(addr=addr, root_token=keys["root_token"])
