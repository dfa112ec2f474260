"""Child processes that outlive us: started in their own session, known by pid and start time, stopped exactly.

A record of a process (`Running`) is written to disk and read back by a later command. A pid alone is not an identity: after a
reboot, or after 32,768 other processes, it is somebody else's. So nothing is ever signalled unless the start time agrees.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict

from infra.settings import process_environment
from schemas.errors import Unavailable

TAG = "RATCHET_STACK"  # in the environment of everything that a stack starts, and so of all their children
_CLOCK_SLACK_S = 2.0  # a start time is computed from the boot time, which moves when the machine's clock is set


class Running(BaseModel):
    """A process that we started: enough to find it again, and to know that it is still the same one."""

    model_config = ConfigDict(frozen=True)

    name: str
    pid: int
    created: float
    log: Path


def start(
    name: str,
    argv: Sequence[str],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    tag: str = "",
    nice: int = 0,
) -> Running:
    """Start `argv` in a session of its own, output appended to `log`. `env` is added to what this process has."""
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = process_environment() | dict(env or {})
    if tag:
        environment[TAG] = tag
    with log.open("ab") as sink:
        try:
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=cwd,
                start_new_session=True,
            )
        except OSError as fault:
            raise Unavailable(f"{name} could not be started: {argv[0]}: {fault.strerror}") from fault
    child.returncode = 0  # it outlives this object on purpose: no ResourceWarning; `alive` and `stop` reap it
    created = 0.0
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(child.pid)
        created = process.create_time()
        if nice:
            process.nice(nice)
    return Running(name=name, pid=child.pid, created=created, log=log)


def find(running: Running) -> psutil.Process | None:
    """The live process behind the record; None when it ended or its pid is now somebody else's."""
    try:
        process = psutil.Process(running.pid)
        if abs(process.create_time() - running.created) > _CLOCK_SLACK_S:
            return None
        if process.status() == psutil.STATUS_ZOMBIE:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(running.pid, os.WNOHANG)
            return None
    except psutil.NoSuchProcess:
        return None
    return process


def alive(running: Running) -> bool:
    """Whether the process lives and is the one that was started."""
    return find(running) is not None


def stop(running: Running, *, grace_s: float = 10.0) -> bool:
    """Ask the process to end (SIGTERM), after `grace_s` end it and all its children (SIGKILL). False: it was not alive.

    What it left behind when it ended before us goes too: children keep its session, whatever name or parent they have now.
    """
    process = find(running)
    family = _session(running)
    if process is not None:
        family += [process, *_below(process)]
        if grace_s > 0:
            _signal([process], signal.SIGTERM)
            psutil.wait_procs([process], timeout=grace_s)
    _signal(family, signal.SIGKILL)
    psutil.wait_procs(family, timeout=5)
    return process is not None


def _below(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _session(running: Running) -> list[psutil.Process]:
    """Who is in the session that the process began. No other process gets its pid while one of them lives."""
    if psutil.pid_exists(running.pid) and find(running) is None and not _zombie(running.pid):
        return []  # the pid is somebody else's now
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, OSError):
            if process.pid != os.getpid() and os.getsid(process.pid) == running.pid:
                found.append(process)
    return found


def _zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def kill(running: Running) -> bool:
    """SIGKILL to the process and its children, as a crash would be."""
    return stop(running, grace_s=0)


def tagged(tag: str) -> list[psutil.Process]:
    """Every process of this user that carries the stack's tag: also the grandchildren that a dead parent left behind."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(TAG) == tag and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            continue
    return found


def sweep(tag: str, *, spare: Iterable[int] = ()) -> list[int]:
    """SIGKILL what still carries the tag, and its children: who names himself anew (vLLM's engines) loses his environment with the tag.
    This process and `spare` aside; the pids that were ended."""
    keep = {os.getpid(), *spare}
    marked = tagged(tag)
    family = {process.pid: process for one in marked if one.pid not in keep for process in (one, *_below(one))}
    left = [process for pid, process in family.items() if pid not in keep]
    _signal(left, signal.SIGKILL)
    psutil.wait_procs(left, timeout=5)
    return [process.pid for process in left]


def wait_until(answers: Callable[[], bool], running: Running | None, *, timeout_s: float, what: str) -> None:
    """Return when `answers()`; raise `Unavailable` with the log's last lines when the process ends or time is up."""
    deadline = time.monotonic() + timeout_s
    while not answers():
        if running is not None and not alive(running):
            raise Unavailable(f"{what} ended while it started; {running.log} ends:\n{tail(running.log)}")
        if time.monotonic() > deadline:
            where = f"; {running.log} ends:\n{tail(running.log)}" if running is not None else ""
            raise Unavailable(f"{what} did not answer within {timeout_s:.0f} s{where}")
        time.sleep(0.1)


def tail(log: Path, lines: int = 12) -> str:
    """The last lines of a log, "" when there is none."""
    try:
        with log.open("rb") as source:
            source.seek(max(0, log.stat().st_size - 16_384))
            text = source.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def _signal(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
