"""Faults of the broker: ended, killed, away, frozen, without disk; one of three; an answer lost on the way.

Recovery here is from the broker's return (on three: from the fault) until all that was published meanwhile is answered.
"""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from schemas.errors import Unavailable
from tests.faults import raw
from tests.faults.hosts import heard
from tests.faults.proxy import Proxy, Swallow
from tests.faults.strike import Step
from tests.faults.table import Row
from tests.faults.threads import whole
from tests.faults.trial import Trial, trial
from tools.stack.kafka import KafkaNode, prepare_node, running_cluster
from tools.stack.ports import free_ports
from tools.stack.processes import Running, alive, stop

AWAY_S = 12.0
HELD_S = 3.0  # a transaction that is open when the fault strikes is held so long: until the broker is away
LOADING = 2_400_000  # records of the offsets topic: a second or more of loading
OFTEN = {"backoff_max_s": 0.3}  # lanes that lost their broker ask it again within that second
START_S = 120.0
OUTAGES = ("term", "kill", "away", "frozen", "loading")
ENDED = ("kill", "away")  # of these an open transaction is aborted; through the others it may live and be committed
SWALLOWS: tuple[Swallow, ...] = ("answer", "request", "connection")
LOST: tuple[str, ...] = SWALLOWS
CLUSTER = ("leader", "coordinator", "moved", "loss")


@dataclass
class Server:
    """A broker of the harness's own, to be hurt."""

    node: KafkaNode
    running: Running | None = None

    async def end(self) -> None:
        """SIGTERM."""
        await whole(self._end, 30.0)

    async def kill(self) -> None:
        await whole(self._end, 0.0)

    async def start(self) -> None:
        await whole(self.begin)

    def begin(self) -> None:
        """Start it and wait until it answers."""
        self.running = self.node.launch()
        self.node.wait(self.running, timeout_s=START_S)

    def alive(self) -> bool:
        return self.running is not None and alive(self.running)

    def send(self, number: signal.Signals) -> None:
        if self.running is not None:
            with suppress(ProcessLookupError):
                os.kill(self.running.pid, number)

    def close(self) -> None:
        """Whatever state it is in."""
        self.send(signal.SIGCONT)
        self._end(0.0)

    def _end(self, grace_s: float) -> None:
        if self.running is not None:
            stop(self.running, grace_s=grace_s)


@contextmanager
def server(folder: Path, cache_dir: Path, *, advertised: int | None = None) -> Generator[Server]:
    """A running single broker with one partition of offsets; `advertised`: the port that clients are sent to."""
    port, controller = free_ports(2)
    told = f"PLAINTEXT://127.0.0.1:{advertised},CONTROLLER://127.0.0.1:{controller}"
    settings = {"offsets.topic.num.partitions": "1", "offsets.topic.segment.bytes": str(1 << 30)}  # never compacted
    if advertised is not None:
        settings["advertised.listeners"] = told
    node = prepare_node(folder, cache_dir, port=port, controller_port=controller, settings=settings)
    made = Server(node)
    try:
        made.begin()
        yield made
    finally:
        made.close()


async def _steady(made: Trial) -> None:
    """A worker for each world, at work."""
    for world in made.worlds:
        await made.begin(world)
    await made.publish("warm")
    await asyncio.gather(*(heard(host, "committed", timeout_s=60) for host in made.every))


async def _open(made: Trial) -> int:
    """Hold a transaction of each world open, its sends acknowledged, and return while they are; how many there are."""
    began = time.monotonic()
    hosts = [made.owners[world.name, 0] for world in made.worlds]
    await asyncio.gather(*(host.arm(Step("acknowledged", 1, "delay", HELD_S)) for host in hosts))
    found = await asyncio.gather(*(heard(host, "struck", after=began, timeout_s=HELD_S) for host in hosts))
    return sum(seen is not None for seen in found)


async def _hit(
    made: Trial,
    mark: str,
    kind: str,
    what: str,
    fault: Callable[[], Awaitable[object]],
    *,
    from_fault: bool = False,
    held: bool = True,
) -> None:
    """Load before, a fault in the middle of it, load after; how long until all is answered. `held`: transactions are open."""
    rows = made.row(mark, kind, what)
    before = [(made.of(world, "fenced"), made.of(world, "dropped")) for world in made.worlds]
    async with made.load(mark, 0.05):
        await asyncio.sleep(1)
        if held and await _open(made) < len(rows):
            rows[0].say("no transaction was open")
        began = time.monotonic()
        await fault()
        back = began if from_fault else time.monotonic()
        for row in rows:
            row.faults += 1
    await made.publish(mark)
    await made.heard_all(mark, back)
    for world, row, (fenced, dropped) in zip(made.worlds, rows, before, strict=True):
        row.fenced, row.dropped = made.of(world, "fenced") - fenced, made.of(world, "dropped") - dropped


@dataclass
class _Broken:
    """What is done to the one broker."""

    made: Trial
    broker: Server

    async def term(self) -> None:
        await self.broker.end()
        await self.broker.start()

    async def kill(self) -> None:
        """Workers that start beside their broker."""
        await self.broker.kill()
        for world in self.made.worlds:
            await self.made.owners[world.name, 0].kill()
        async with asyncio.TaskGroup() as together:
            together.create_task(self.broker.start())
            for world in self.made.worlds:
                together.create_task(self.made.begin(world))

    async def away(self) -> None:
        await self.broker.kill()
        await asyncio.sleep(AWAY_S)
        await self.broker.start()

    async def frozen(self) -> None:
        for seconds in (3, 10):
            self.broker.send(signal.SIGSTOP)
            await asyncio.sleep(seconds)
            self.broker.send(signal.SIGCONT)
            await asyncio.sleep(1)

    async def prepare(self) -> None:
        """Many offsets to load, and workers that do not wait long."""
        await raw.fill_offsets(self.broker.node.bootstrap, LOADING)
        for world in self.made.worlds:
            await self.made.owners[world.name, 0].stop()
            host = await self.made.begin(world, settings=OFTEN)
            await heard(host, "opened", timeout_s=60)

    async def loading(self) -> None:
        """It serves its clients, and reads its offsets topic, which is long, while lanes that lost it open again."""
        await self.broker.kill()
        await asyncio.sleep(2)
        await self.broker.start()

    def asked(self) -> list[int]:
        """How often lanes of each world asked for offsets that were not loaded."""
        return [self.made.of(world, "unknown offsets") for world in self.made.worlds]


async def single(folder: Path, cache_dir: Path, only: Sequence[str] = OUTAGES) -> list[Row]:
    """One broker: TERM, SIGKILL with the workers killed as well, 12 s away, frozen for 3 and for 10 s, slow to know its offsets."""
    with server(folder / "broker", cache_dir) as broker:
        async with trial("outage", broker.node.bootstrap, folder) as made:
            await _steady(made)
            broken = _Broken(made, broker)
            table = {
                "term": ("TERM, started again", broken.term),
                "kill": ("SIGKILL with all workers, started together", broken.kill),
                "away": ("12 s away", broken.away),
                "frozen": ("frozen 3 s, 10 s (a disk that stalls)", broken.frozen),
                "loading": ("SIGKILL, its offsets load for long", broken.loading),
            }
            for mark in only:
                if mark == "loading":
                    await broken.prepare()
                before = broken.asked()
                await _hit(made, mark, "broker", *table[mark])
                rows = made.row(mark, "", "")
                times = [now - then for now, then in zip(broken.asked(), before, strict=True)]
                for row, asked in zip(rows, times, strict=True):
                    row.inside = mark in ENDED
                    if asked:
                        row.notes.append(f"{row.shape}: lanes asked {asked} times while the offsets loaded")
                if mark == "loading" and not any(times):
                    rows[0].say("no lane asked while the offsets loaded")
            return await made.finish()


def _swallows(only: Sequence[str]) -> list[Swallow]:
    return [kind for kind in SWALLOWS if only.count(kind)]


async def swallowed(folder: Path, cache_dir: Path, only: Sequence[str] = LOST) -> list[Row]:
    """The answer to EndTxn, the request, or the connection is lost; each lane's next one."""
    (port,) = free_ports(1)
    with server(folder / "proxied", cache_dir, advertised=port) as broker:
        proxy = Proxy(port, broker.node.port)
        await proxy.start()
        try:
            async with trial("proxy", f"127.0.0.1:{port}", folder) as made:
                await _steady(made)
                for kind in _swallows(only):

                    async def lose(kind: Swallow = kind) -> None:
                        before = proxy.swallowed
                        proxy.swallow(kind, 4)
                        while proxy.swallowed < before + 4:  # noqa: ASYNC110  the lanes commit when they do
                            await asyncio.sleep(0.01)

                    await _hit(made, kind, "EndTxn", f"{kind} lost, 4 times", lose, from_fault=True, held=False)
                return await made.finish()
        finally:
            await proxy.stop()


def check_disk() -> None:
    """Raises Unavailable where nobody may mount a file system of their own."""
    try:
        subprocess.run(["unshare", "-rm", "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Unavailable(
            "to fill a disk takes a file system of our own, and `unshare -rm` makes none here "
            f"({error}): it needs util-linux and user namespaces; `--only` without disk runs the rest"
        ) from error


class Disk:
    """A file system of 64 MiB that only the broker sees, in a mount namespace of its own. Needs no root where users may have one."""

    def __init__(self, folder: Path) -> None:
        mount = f"mount -t tmpfs -o size=64m ratchet {folder}/small && cp -a {folder}/logs/. {folder}/small"
        bind = f"mount --bind {folder}/small {folder}/logs"
        (folder / "small").mkdir()
        self.folder = folder
        self._anchor = subprocess.Popen(
            ["unshare", "-rm", "sh", "-c", f"{mount} && {bind} && echo ready && exec sleep 3600"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        if self._anchor.stdout is None or self._anchor.stdout.readline() != b"ready\n":
            self.close()
            raise Unavailable("no file system of our own can be mounted here; `--only` without disk runs the rest")

    @property
    def prefix(self) -> tuple[str, ...]:
        return ("nsenter", "-t", str(self._anchor.pid), "-U", "-m", "--preserve-credentials")

    def _filler(self) -> Path:
        return Path(f"/proc/{self._anchor.pid}/root{self.folder}/small/filler")

    def fill(self) -> int:
        """Take all that is left; how many bytes."""
        taken = 0
        with suppress(OSError), self._filler().open("wb", buffering=0) as sink:
            while True:
                taken += sink.write(b"\0" * 65_536)
        return taken

    def free(self) -> None:
        self._filler().unlink()

    def close(self) -> None:
        self._anchor.kill()
        self._anchor.wait()
        if self._anchor.stdout is not None:
            self._anchor.stdout.close()


async def full_disk(folder: Path, cache_dir: Path) -> list[Row]:
    """The broker's disk fills up under load; it ends, room is made, it is started again."""
    port, controller = free_ports(2)
    home = folder / "full"
    node = prepare_node(home, cache_dir, port=port, controller_port=controller)
    disk = Disk(home)
    broker = Server(replace(node, prefix=disk.prefix))
    try:
        await broker.start()
        async with trial("disk", node.bootstrap, folder) as made:
            await _steady(made)
            ended = False

            async def fill() -> None:
                nonlocal ended
                disk.fill()
                for _ in range(200):
                    await asyncio.sleep(0.1)
                    ended = not broker.alive()
                    if ended:
                        break
                await broker.kill()
                disk.free()
                await broker.start()

            await _hit(made, "full", "broker", "disk full, room made, started again", fill)
            rows = await made.finish()
            for row in rows:
                if not ended:
                    row.say("the broker went on with a full disk")
            return rows
    finally:
        broker.close()
        disk.close()


async def three(folder: Path, cache_dir: Path, only: Sequence[str] = CLUSTER) -> list[Row]:
    """Three brokers: a leader and a coordinator killed, a leader moved by a controlled stop, one away for long."""
    with running_cluster(folder / "cluster", cache_dir) as cluster:
        async with trial("three", cluster.bootstrap, folder, label="cluster", replication=3) as made:
            await _steady(made)
            world = made.worlds[1]
            topics = [*world.topics, "__transaction_state", "__consumer_offsets"]

            async def leads() -> int:
                return await raw.leader(cluster.bootstrap, f"{world.group}.a", 0)

            async def coordinates() -> int:
                return await raw.coordinator(cluster.bootstrap, world.group)

            async def hit(find: Callable[[], Awaitable[int]], *, hard: bool, away_s: float) -> None:
                node = await find()
                await whole(cluster.kill if hard else cluster.stop, node)
                await asyncio.sleep(away_s)
                await whole(cluster.start, node)

            table = (
                ("leader", "leader SIGKILL", leads, True, 5.0),
                ("coordinator", "coordinator SIGKILL", coordinates, True, 5.0),
                ("moved", "leader TERM, moved", leads, False, 5.0),
                ("loss", "one broker away 20 s", coordinates, True, 20.0),
            )
            for mark, what, find, hard, away_s in (row for row in table if row[0] in only):
                await raw.whole(cluster.bootstrap, topics, 3)
                probe = f"{mark}-probe"
                rows = made.row(probe, "cluster", f"{what}, probe")
                told = made.row(mark, "cluster", what)
                before = [(made.of(world, "fenced"), made.of(world, "dropped")) for world in made.worlds]
                async with made.load(mark, 0.05):
                    await asyncio.sleep(1)
                    if await _open(made) < len(rows):
                        rows[0].say("no transaction was open")
                    began = time.monotonic()
                    async with asyncio.TaskGroup() as together:
                        together.create_task(hit(find, hard=hard, away_s=away_s))
                        await asyncio.sleep(0.5)
                        await made.publish(probe)
                        await made.heard_all(probe, began)
                for row in (*told, *rows):
                    row.faults += 1
                await made.heard_all(mark, time.monotonic())
                for world, row, (fenced, dropped) in zip(made.worlds, told, before, strict=True):
                    row.fenced, row.dropped = made.of(world, "fenced") - fenced, made.of(world, "dropped") - dropped
            await made.finish()
            return _probed(made)


def _probed(made: Trial) -> list[Row]:
    """The probe's recovery and counts belong to the row of its fault."""
    found = {key: row for key, row in made.rows.items() if row.faults}
    for (mark, name), row in found.items():
        probe = found.get((f"{mark}-probe", name))
        if probe is not None:
            row.recoveries = probe.recoveries
            row.notes += probe.notes
            row.failed = row.failed or probe.bad
            row.add(probe.lost, probe.duplicated, probe.wrong)
    return [row for (mark, _), row in found.items() if not mark.endswith("-probe")]
