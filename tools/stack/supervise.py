"""`python -m tools.stack.supervise SPEC STATE`: keeps the agents' processes alive.

A child that ends is started again after 0.2 s, doubling to 5 s while it does not stay up; the supervisor never gives up and always
says so in STATE. On SIGTERM it asks its children to end, waits 10 s, ends them; those that stand apart after the others, who may need
them to the last. A child's crash is never its own.
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict

from infra.settings import bare_environment, process_environment
from schemas.errors import Refused, Unavailable

from .processes import TAG
from .vault import call

FIRST_WAIT_S, LONGEST_WAIT_S, STEADY_S, GRACE_S = 0.2, 5.0, 20.0, 10.0
RENEW_S = 3600.0  # of a token that lives a day


class Child(BaseModel):
    """One process to keep alive.

    `env` is added to what the supervisor has; for one that stands `apart`, to the little that any program needs. `role`: the AppRole
    that it logs in to Vault as, None where it does not.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    argv: list[str]
    env: dict[str, str] = {}
    log: Path
    role: str | None = None
    apart: bool = False


class Issuer(BaseModel):
    """Where every start of a child gets a wrapped secret id of its own: one is good for one login.

    `lent`: files with tokens that children issue with, kept alive like our own.
    """

    model_config = ConfigDict(frozen=True)

    addr: str
    token_file: Path
    lent: list[Path] = []


class Spec(BaseModel):
    """What to run."""

    model_config = ConfigDict(frozen=True)

    children: list[Child]
    issuer: Issuer | None = None


class ChildState(BaseModel):
    """How a child is. `pid` 0: it does not run now, `said` why."""

    name: str
    pid: int = 0
    created: float = 0.0
    starts: int = 0
    last_exit: int | None = None
    said: str = ""


class State(BaseModel):
    """What STATE holds: written whole at every change, read by `ratchet status` and `down`."""

    supervisor: int
    children: dict[str, ChildState]


class Supervisor:
    """Runs the children of one spec until it is told to stop."""

    def __init__(self, spec: Spec, file: Path) -> None:
        self._spec = spec
        self._file = file
        self._state = State(
            supervisor=os.getpid(), children={child.name: ChildState(name=child.name) for child in spec.children}
        )
        self._stop = asyncio.Event()
        self._left_alone = asyncio.Event()  # stopped, and only those that stand apart live

    async def run(self) -> None:
        """Until SIGTERM or SIGINT."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        async with asyncio.TaskGroup() as group:
            near = [
                group.create_task(self._keep(child, self._stop)) for child in self._spec.children if not child.apart
            ]
            for child in self._spec.children:
                if child.apart:
                    group.create_task(self._keep(child, self._left_alone))
            if self._spec.issuer is not None:
                group.create_task(self._keep_issuing(self._spec.issuer))
            await self._stop.wait()
            await asyncio.gather(*near)
            self._left_alone.set()

    async def _keep_issuing(self, issuer: Issuer) -> None:
        while not self._stop.is_set():
            try:
                await asyncio.to_thread(renew, issuer)
            except (OSError, Refused, Unavailable) as fault:
                sys.stderr.write(f"the token that issues secret ids is not renewed: {fault}\n")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), RENEW_S)

    async def _keep(self, child: Child, stop: asyncio.Event) -> None:
        state = self._state.children[child.name]
        wait_s = FIRST_WAIT_S
        while not stop.is_set():
            began = time.monotonic()
            try:
                process = await self._start(child)
            except (OSError, Refused, Unavailable) as fault:
                state.pid, state.said = 0, f"could not be started: {fault}"
                self._write()
            else:
                state.pid, state.starts, state.said = process.pid, state.starts + 1, ""
                with contextlib.suppress(psutil.NoSuchProcess):
                    state.created = psutil.Process(process.pid).create_time()
                self._write()
                await self._until_end(process, state, stop)
            if time.monotonic() - began > STEADY_S:
                wait_s = FIRST_WAIT_S
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), wait_s)
            wait_s = min(LONGEST_WAIT_S, 2 * wait_s)

    async def _start(self, child: Child) -> asyncio.subprocess.Process:
        environment = await asyncio.to_thread(environment_of, child, self._spec.issuer)
        with child.log.open("ab") as sink:
            return await asyncio.create_subprocess_exec(
                *child.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=sink,
                stderr=asyncio.subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )

    async def _until_end(self, process: asyncio.subprocess.Process, state: ChildState, stop: asyncio.Event) -> None:
        ended = asyncio.create_task(process.wait())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await asyncio.wait({ended}, timeout=GRACE_S)
        if not ended.done():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        stopping.cancel()
        state.last_exit = await ended
        state.pid, state.said = 0, f"ended with {state.last_exit}"
        self._write()

    def _write(self) -> None:
        fresh = self._file.with_suffix(".new")
        fresh.write_text(self._state.model_dump_json(indent=1), encoding="utf-8")
        fresh.replace(self._file)


def environment_of(child: Child, issuer: Issuer | None) -> dict[str, str]:
    """What one start of the child is given. With a role: a secret id that is good for this start."""
    environment = (bare_environment(TAG) if child.apart else process_environment()) | child.env
    if issuer is not None and child.role is not None:
        environment["RATCHET_VAULT_WRAPPED_SECRET_ID"] = _fresh(issuer, child.role)
    return environment


def read_state(file: Path) -> State | None:
    """What the supervisor last said; None where there is nothing."""
    try:
        return State.model_validate_json(file.read_bytes())
    except (OSError, ValueError):
        return None


def renew(issuer: Issuer) -> None:
    """Keep the issuer's tokens alive: a day without is their end, and nothing that ends could then be started again."""
    for file in (issuer.token_file, *issuer.lent):
        call(issuer.addr, "POST", "auth/token/renew-self", {}, token=file.read_text(encoding="utf-8").strip())


def _fresh(issuer: Issuer, role: str) -> str:
    token = issuer.token_file.read_text(encoding="utf-8").strip()
    answer = call(
        issuer.addr,
        "POST",
        f"auth/approle/role/{role}/secret-id",
        {},
        token=token,
        headers={"X-Vault-Wrap-TTL": "120s"},
    )
    return answer["wrap_info"]["token"]


def main(argv: list[str]) -> int:
    spec, state = Path(argv[0]), Path(argv[1])
    asyncio.run(Supervisor(Spec.model_validate_json(spec.read_bytes()), state).run())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
