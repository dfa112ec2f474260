"""The demonstration's local stack: fresh data for every run, its processes for the report, its evidence for the verifier."""

import asyncio
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from agents.evidence.coverage import frontiers
from agents.evidence.snapshot import Snapshot
from infra.artifacts import DirectoryStore
from infra.clock import SystemClock
from infra.keys import INDEX
from infra.secrets import LocalSecrets
from infra.settings import Settings, load
from schemas import topics
from schemas.errors import Refused
from streams.kafka import KafkaBroker
from tools.demo.audit import audit
from tools.stack import AGENT_GROUPS, down, status, up
from tools.stack.processes import tagged
from tools.stack.secure import open_security
from tools.stack.stack import Record
from tools.stack.supervise import read_state
from tools.voice import Voice, voices

MARKER = "demonstration"
FRESH = ("data", "evidence", "witness", "runner", "artifacts", "jobs", "logs")


def forget_principals(settings: Settings) -> None:
    """Whoever spoke on data that is gone: `up` makes keys anew, also where one was revoked. A Vault of the stack's goes with its data."""
    file = settings.state_dir / "secrets.json"
    if settings.secrets == "local" and file.exists():
        asyncio.run(LocalSecrets.open(file).put(INDEX, {}))


class Stage:
    """The stack of one state folder, owned by the demonstration. `groups` may differ for a test."""

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self.settings = settings.resolved()
        self.state = self.settings.state_dir
        self.say = say

    def up(self, groups: Any = AGENT_GROUPS, *, vault: bool = False, secure: bool = False) -> None:
        """Start on fresh data. Refuses to touch the data of a stack that is not the demonstration's own."""
        marker = self.state / "data" / MARKER
        running = status(self.settings).state != "absent"
        if (running or (self.state / "data").exists()) and not marker.exists():
            raise Refused(
                f"{self.state} holds the data of a stack of yours; the demonstration begins on fresh data: set "
                "RATCHET_STATE_DIR to another folder for it, or remove that one",
                kind="not-ours",
            )
        if running:
            self.say("an earlier demonstration still runs: it is stopped")
            self.down()
        for name in FRESH:
            shutil.rmtree(self.state / name, ignore_errors=True)
        forget_principals(self.settings)
        marker.parent.mkdir(parents=True)
        marker.write_text("The data here is the demonstration's: the next one begins anew.\n", encoding="utf-8")
        up(settings=self.settings, say=self.say, agents=groups, vault=vault, secure=secure)

    def down(self) -> list[str]:
        return down(settings=self.settings)

    @property
    def record(self) -> Record:
        return Record.model_validate_json((self.state / "stack.json").read_bytes())

    @property
    def bootstrap(self) -> str:
        return self.record.services["kafka"].address

    @property
    def partitions(self) -> int:
        return self.record.partitions

    @property
    def artifacts(self) -> DirectoryStore:
        return DirectoryStore(self.state / "artifacts")

    @property
    def own_settings(self) -> Settings:
        """As `up` left them."""
        return load({}, self.state / "env").resolved()

    async def broker(self) -> KafkaBroker:
        """Kafka as an operator reaches it."""
        return KafkaBroker(self.bootstrap, await open_security(self.own_settings, "operator"))

    async def voices(self) -> dict[str, Voice]:
        """Who speaks on each topic, with the keys that `up` made."""
        return await voices(self.own_settings)

    def agent_pids(self) -> dict[str, int]:
        """The agents' processes by name, as the supervisor knows them now."""
        state = read_state(self.state / "agents-state.json")
        return {} if state is None else {child.name: child.pid for child in state.children.values() if child.pid}

    def engine_pids(self) -> list[int]:
        """The processes of Ray's engine actors."""
        found: list[int] = []
        for process in tagged(self.record.tag):
            try:
                title = " ".join(process.cmdline())
            except psutil.Error:
                continue
            if "EngineActor" in title:
                found.append(process.pid)
        return found

    def resident_bytes(self) -> int:
        """Resident memory of the whole stack; shared pages count once per process."""
        total = 0
        for process in tagged(self.record.tag):
            try:
                total += process.memory_info().rss
            except psutil.Error:
                continue
        return total

    async def evidence(self, out: Path, request: str, timeout_s: float = 120.0) -> dict[str, Any]:
        """Export once the log has caught up with the topics, and have it checked as an auditor would: see `audit`.

        Adds `missing`: offsets of recorded topics, up to the ends at the beginning of this call, that no leaf covers.
        """
        wanted = {tp: end for tp, end in (await self._ends()).items() if end}
        clock = SystemClock()
        deadline = clock.monotonic() + timeout_s
        while self._lacking(wanted) and clock.monotonic() < deadline:
            await clock.sleep(1.0)
        shutil.rmtree(out, ignore_errors=True)
        said = await asyncio.to_thread(audit, self.settings, request, out)
        return said | {"missing": self._lacking(wanted)}

    def _lacking(self, wanted: Mapping[tuple[str, int], int]) -> int:
        """How many of these offsets the published log does not have yet."""
        folder = self.state / "evidence"
        if not (folder / "checkpoint").exists():
            return sum(wanted.values())
        known = frontiers(Snapshot.open(folder).newest_first())
        return sum(max(0, end - (known[tp].next if tp in known else 0)) for tp, end in wanted.items())

    async def _ends(self) -> dict[tuple[str, int], int]:
        admin = (await self.broker()).admin()
        await admin.start()
        try:
            return await admin.ends([(topic, p) for topic in topics.recorded() for p in range(self.partitions)])
        finally:
            await admin.stop()
