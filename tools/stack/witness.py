"""The stack's own witness: a process that stands apart from the log that it watches, its files, and whether it does its work.

It shows the way that an independent witness goes, and finds a log that was rolled back by mistake. Who owns both can make both lie.
"""

import asyncio
import hashlib
import http.client
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from infra.settings import Settings, env_name
from schemas.errors import Refused, Unavailable
from schemas.tlog import policy
from schemas.tlog.note import Untrusted
from schemas.tlog.strict import Malformed

from .ports import LOOPBACK
from .roles import WITNESS_ROLE
from .supervise import Child, Issuer, environment_of

PETNAME = "local"
FOLDER, LOGS, POLICY, AUDITORS = "witness", "logs.policy", "witnesses.policy", "evidence.policy"
OWN = "evidence/policy.txt"  # the log's, as of its published checkpoint
NOBODY = policy.Policy((), {}, {}, policy.NONE)
_FLEETING = {"tmpfs", "ramfs"}


def log_keys(settings: Settings) -> list[str]:
    """The verifier keys of this stack's log, oldest first. `Refused` where the settings' credentials cannot be used for that."""
    from agents.wiring import open_notary
    from infra.secrets import open_secrets  # heavy: clients of Vault

    async def ask() -> list[str]:
        source = await open_secrets(settings, lambda _: None)
        try:
            return await asyncio.to_thread(lambda: open_notary(settings, source).vkeys())
        finally:
            await source.close()

    return asyncio.run(ask())


def child_of(settings: Settings, port: int, role_ids: Mapping[str, str]) -> Child:
    """Its process: no Kafka, no Redis, no folder but its own. It signs with Vault's key where the stack's own Vault has its role."""
    folder = settings.state_dir / FOLDER
    own = {
        "state_dir": folder,
        "witness_dir": folder,
        "witness_logs": folder / LOGS,
        "witness_listen": f"{LOOPBACK}:{port}",
        "witness_name": f"{'' if role_ids else 'dev.'}ratchet/{settings.instance}/witness",
        "log_level": settings.log_level,
    }
    if role_ids:
        own |= {
            "secrets": "vault",
            "vault_addr": settings.vault_addr,
            "vault_role": WITNESS_ROLE,
            "vault_role_id": role_ids[WITNESS_ROLE],
        }
    return Child(
        name="witness",
        argv=[sys.executable, "-m", "agents", "witness"],
        env={env_name(field): str(value) for field, value in own.items()},
        log=settings.state_dir / "logs" / "witness.log",
        role=WITNESS_ROLE if role_ids else None,
        apart=True,
    )


def vkey_of(child: Child, issuer: Issuer | None) -> str:
    """The verifier key that this process cosigns with: asked of the process's own program, which makes the key where there is none."""
    done = subprocess.run(
        [*child.argv, "--vkey"], env=environment_of(child, issuer), capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise Unavailable(f"the witness does not tell its key: {done.stderr.strip()[-800:]}")
    return done.stdout.strip()


def ask_of(state_dir: Path, vkey: str, url: str) -> Path:
    """The file that tells the log whom to ask: this witness, which must agree."""
    file = state_dir / POLICY
    _replaced(file, policy.parse_policy(f"witness {PETNAME} {vkey} {url}\nquorum {PETNAME}\n").text(urls=True))
    return file


def tell(state_dir: Path, vkeys: list[str], witnesses: Path | None) -> bool:
    """Say to the witness and to auditors what the log's keys are, and to auditors who watches it; whether that is new.

    The witness reads its file again when that changes. `Refused` where the file of the witnesses is no policy.
    """
    try:
        asked = NOBODY if witnesses is None else _policy(witnesses)
    except (OSError, ValueError) as fault:
        raise Refused(f"{env_name('witnesses')}={witnesses} cannot be used: {fault}", kind="settings") from fault
    news = _replaced(state_dir / FOLDER / LOGS, NOBODY.with_logs(vkeys).text())
    return _replaced(state_dir / AUDITORS, asked.with_logs(vkeys).text()) or news


def answers(url: str) -> bool:
    """Whether a witness is there: for a log that it does not know it says so."""
    return _get(url, "")[0] == http.client.NOT_FOUND


def problems_of(state_dir: Path) -> tuple[list[str], str]:
    """What keeps the stack's own from its work, each with what to do; and what it last cosigned, in words."""
    try:
        asked, published, known = (_policy(state_dir / file) for file in (POLICY, AUDITORS, f"{FOLDER}/{LOGS}"))
        says = _policy(state_dir / OWN) if (state_dir / OWN).exists() else published
        key, url = asked.witnesses[PETNAME].key, asked.witnesses[PETNAME].url or ""
    except (OSError, ValueError, KeyError) as fault:
        return [f"a policy file cannot be used: {fault}; `ratchet down` and `up` write them anew"], ""
    problems: list[str] = []
    if key not in [witness.key for witness in published.witnesses.values()]:
        problems.append(f"{AUDITORS} does not list {key.name}: `ratchet down` and `up` write it anew")
    if strange := [log.name for log in says.logs if log not in known.logs]:
        problems.append(f"it does not know a key of {', '.join(strange)}: `ratchet up` tells it")
    problems += _fleeting(state_dir / FOLDER)
    status, note = 0, b""
    for origin in {log.name for log in published.logs}:  # of all its keys the same
        status, note = _get(url, origin)
    if status == 0:
        problems.append(f"it does not answer at {url}: see logs/witness.log")
    if status != http.client.OK:
        return problems, "has cosigned nothing yet"
    try:
        from infra.notary import verify  # heavy: clients of Vault

        seen = policy.open_checkpoint(note, replace(asked, logs=known.logs), verify)
    except (Malformed, Untrusted) as fault:
        return [*problems, f"what it cosigned does not verify under {key.name}: {fault}; `ratchet down` and `up`"], ""
    return problems, f"has cosigned {seen.checkpoint.size} entries"


def unreachable(file: Path) -> list[str]:
    """What keeps the log from asking the witnesses of this policy file. Raises nothing: what is wrong with the file is said."""
    try:
        asked = _policy(file)
    except (OSError, ValueError) as fault:
        return [f"RATCHET_WITNESSES={file} cannot be used: {fault}"]
    return [
        f"witness {name} does not answer at {one.url}" if one.url else f"witness {name} has no URL there"
        for name, one in asked.witnesses.items()
        if not one.url or _get(one.url, "")[0] == 0
    ]


def _policy(file: Path) -> policy.Policy:
    return policy.parse_policy(file.read_text(encoding="utf-8"))


def _replaced(file: Path, text: str) -> bool:
    """Put the text there whole; whether it is another than was there."""
    if file.exists() and file.read_text(encoding="utf-8") == text:
        return False
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = file.with_name(f".{file.name}.new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(file)
    return True


def _fleeting(folder: Path) -> list[str]:
    """A witness that forgets vouches for anything."""
    mounts = sorted(psutil.disk_partitions(all=True), key=lambda row: len(row.mountpoint))
    found = [row.fstype for row in mounts if folder.resolve().is_relative_to(row.mountpoint)]
    return [f"{folder} is lost at a restart of this machine ({found[-1]})"] if found and found[-1] in _FLEETING else []


def _get(url: str, origin: str) -> tuple[int, bytes]:
    """Status and body of the witness's last checkpoint of a log; status 0 where nobody answers."""
    parts = urlsplit(url)
    made = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = made(parts.hostname or LOOPBACK, parts.port, timeout=3)
    try:
        connection.request("GET", f"{parts.path.rstrip('/')}/{hashlib.sha256(origin.encode()).hexdigest()}/checkpoint")
        response = connection.getresponse()
        return response.status, response.read(1 << 20)
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()
