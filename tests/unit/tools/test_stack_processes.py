"""Child processes of the stack: known by pid and start time, stopped exactly; ports; the supervisor; readiness."""

import http.server
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from schemas.errors import Unavailable
from tools.stack.ports import ask, free_ports, listens, taken
from tools.stack.processes import TAG, Running, alive, find, kill, start, stop, sweep, tagged, tail, wait_until
from tools.stack.stack import ready
from tools.stack.supervise import Child, Spec, State, read_state

SLEEP = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]
STUBBORN = [
    sys.executable, "-S", "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)",
]  # fmt: skip


def until(holds: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Wait for something that must happen."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def test_start_stop(tmp_path: Path) -> None:
    """A started process lives in a session of its own, stops when asked, and is not stopped twice."""
    running = start("sleeper", SLEEP, log=tmp_path / "log")
    assert alive(running)
    assert psutil.Process(running.pid).pid == running.pid
    assert stop(running)
    assert not alive(running)
    assert not stop(running)


def test_another_process_with_the_same_pid_is_not_ours(tmp_path: Path) -> None:
    """A record whose start time does not agree finds nothing and stops nothing: the pid was given to somebody else."""
    running = start("sleeper", SLEEP, log=tmp_path / "log")
    yesterday = running.model_copy(update={"created": running.created - 3600})
    assert find(yesterday) is None
    assert not stop(yesterday)
    assert alive(running)
    kill(running)


def test_deaf_process_is_ended_after_its_grace(tmp_path: Path) -> None:
    """What ignores SIGTERM is ended by SIGKILL."""
    running = start("deaf", STUBBORN, log=tmp_path / "log")
    until(lambda: "deaf" in tail(tmp_path / "log"))
    began = time.monotonic()
    assert stop(running, grace_s=0.3)
    assert time.monotonic() - began < 3
    assert not alive(running)


def test_sweep_finds_orphans_by_their_tag(tmp_path: Path) -> None:
    """A grandchild whose parent is gone is found by the tag in its environment, and only by it."""
    code = f"import subprocess; subprocess.Popen({SLEEP!r}, start_new_session=True)"
    start("parent", [sys.executable, "-S", "-c", code], log=tmp_path / "log", tag="tag-under-test")
    until(lambda: any("sleep(60)" in " ".join(p.cmdline()) for p in tagged("tag-under-test")))
    assert sweep("another-tag") == []
    assert len(sweep("tag-under-test")) >= 1
    assert tagged("tag-under-test") == []


def test_unknown_program_is_unavailable(tmp_path: Path) -> None:
    """A program that is not there is named."""
    with pytest.raises(Unavailable, match="no-such-program"):
        start("x", ["no-such-program"], log=tmp_path / "log")


def test_wait_says_how_the_log_ends(tmp_path: Path) -> None:
    """A process that ends while it starts is told with its last words."""
    running = start("brief", [sys.executable, "-S", "-c", "print('the disk is on fire')"], log=tmp_path / "log")
    with pytest.raises(Unavailable, match="the disk is on fire"):
        wait_until(lambda: False, running, timeout_s=10, what="Brief")


def test_wait_is_bounded() -> None:
    """What never answers is Unavailable after its time."""
    with pytest.raises(Unavailable, match="did not answer within"):
        wait_until(lambda: False, None, timeout_s=0.2, what="Nobody")


def test_ports() -> None:
    """Free ports are different; a port that is listened on is taken, and answers; a closed one is neither."""
    assert len(set(free_ports(20))) == 20
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        assert taken(port)
        assert listens("127.0.0.1", port)
    assert not taken(port)
    assert not listens("127.0.0.1", port)
    assert ask("127.0.0.1", port, b"PING") == b""


@pytest.fixture
def page() -> Iterator[tuple[int, list[str]]]:
    """A metrics page whose text the test sets."""
    text = [""]

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text[0].encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server.server_address[1], text
    server.shutdown()
    server.server_close()
    thread.join()


def test_ready_when_every_lane_is_open(page: tuple[int, list[str]]) -> None:
    """A process of agents is ready when each agent has opened every partition; agents without lanes when they answer."""
    port, text = page
    row = 'ratchet_lanes_opened_total{agent="%s",partition="%d"} 1.0\n'
    text[0] = row % ("router", 0) + row % ("router", 1) + row % ("trust", 0)
    assert ready(port, ["router"], 2)
    assert not ready(port, ["router", "trust"], 2)
    assert not ready(port, ["router"], 3)
    assert ready(port, ["evidence"], 2)
    assert not ready(free_ports(1)[0], ["evidence"], 2)


class Supervised:
    """A supervisor of one or more children, and what it says."""

    def __init__(self, folder: Path, children: list[Child], tag: str = "") -> None:
        self.file = folder / "state.json"
        spec = folder / "spec.json"
        spec.write_text(Spec(children=children).model_dump_json())
        argv = [sys.executable, "-m", "tools.stack.supervise", str(spec), str(self.file)]
        self.running = start("supervisor", argv, log=folder / "supervisor.log", tag=tag)

    def state(self) -> State:
        held = read_state(self.file)
        assert held is not None
        return held

    def runs(self, name: str, starts: int) -> bool:
        held = read_state(self.file)
        return held is not None and held.children[name].pid > 0 and held.children[name].starts >= starts


def test_supervisor_restarts_what_was_killed(tmp_path: Path) -> None:
    """A child ended by SIGKILL is back soon, under another pid, and its brother is not touched."""
    children = [Child(name=name, argv=SLEEP, log=tmp_path / f"{name}.log") for name in ("one", "two")]
    supervised = Supervised(tmp_path, children)
    until(lambda: supervised.runs("one", 1) and supervised.runs("two", 1))
    before = supervised.state()
    psutil.Process(before.children["one"].pid).send_signal(signal.SIGKILL)
    until(lambda: supervised.runs("one", 2))
    after = supervised.state()
    assert after.children["one"].pid != before.children["one"].pid
    assert after.children["one"].last_exit == -signal.SIGKILL
    assert after.children["two"].pid == before.children["two"].pid
    pids = [child.pid for child in after.children.values()]
    assert stop(supervised.running)
    until(lambda: not any(psutil.pid_exists(pid) for pid in pids))


def test_supervisor_says_what_does_not_stay_up(tmp_path: Path) -> None:
    """A child that ends at once is tried again, ever later, and the state says how it ended; one that cannot start, why."""
    children = [
        Child(name="brief", argv=[sys.executable, "-S", "-c", "raise SystemExit(3)"], log=tmp_path / "brief.log"),
        Child(name="none", argv=["no-such-program"], log=tmp_path / "none.log"),
    ]
    supervised = Supervised(tmp_path, children)
    until(lambda: read_state(supervised.file) is not None and supervised.state().children["brief"].starts >= 2)
    state = supervised.state()
    assert state.children["brief"].last_exit == 3
    assert "no-such-program" in state.children["none"].said
    assert stop(supervised.running)


def test_a_child_that_stands_apart_has_no_setting_of_the_supervisors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two children one sees what the supervisor sees; the other its own variables, the path, and the stack's tag."""
    for name in ("KAFKA_BOOTSTRAP", "REDIS_URL", "RATCHET_VAULT_TOKEN", "SOMEBODYS_PASSWORD"):
        monkeypatch.setenv(name, "seen")
    code = "import os, sys, time; print(*sorted(os.environ), flush=True); time.sleep(60)"
    children = [
        Child(
            name=name, argv=[sys.executable, "-c", code], env={"OWN": "1"}, log=tmp_path / name, apart=name == "apart"
        )
        for name in ("near", "apart")
    ]
    supervised = Supervised(tmp_path, children, tag="tag-under-test")
    until(lambda: all(tail(tmp_path / child.name) for child in children))
    near, apart = (set(tail(tmp_path / child.name).split()) for child in children)
    assert near > {"KAFKA_BOOTSTRAP", "REDIS_URL", "RATCHET_VAULT_TOKEN", "SOMEBODYS_PASSWORD", "OWN", TAG}
    assert {"PATH", "OWN", TAG} <= apart
    assert not apart & {"KAFKA_BOOTSTRAP", "REDIS_URL", "RATCHET_VAULT_TOKEN", "SOMEBODYS_PASSWORD"}
    assert stop(supervised.running)


def test_who_stands_apart_ends_last(tmp_path: Path) -> None:
    """A child that needs half a second to end has who stands apart until then, also where that one was named first."""
    code = (
        "import signal, sys, time; "
        "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(float(sys.argv[1])), print(time.time()), sys.exit())); "
        "print('ready', flush=True); time.sleep(60)"
    )
    children = [
        Child(name=name, argv=[sys.executable, "-S", "-c", code, wait_s], log=tmp_path / name, apart=name == "apart")
        for name, wait_s in (("apart", "0"), ("near", "0.5"))
    ]
    supervised = Supervised(tmp_path, children)
    until(lambda: all("ready" in tail(tmp_path / child.name) for child in children))
    assert stop(supervised.running)
    apart, near = (float(tail(tmp_path / child.name, 1)) for child in children)
    assert apart > near


def test_records_survive_a_round_trip() -> None:
    """What is written to disk is read back the same."""
    running = Running(name="x", pid=1, created=2.5, log=Path("/l"))
    assert Running.model_validate_json(running.model_dump_json()) == running
    assert read_state(Path("/no/such/file")) is None
