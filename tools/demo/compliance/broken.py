"""A violation in earnest: records are deleted before the evidence log has read them. It finds that out, and an incident begins."""

import os
import signal
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from agents.rules.incidents import HOUR_MS
from schemas.errors import Unavailable
from schemas.topics import full
from tools.demo.compliance.gated import request_id, submit
from tools.demo.compliance.kafka import behind, lose, rows
from tools.demo.compliance.story import Asks
from tools.demo.compliance.telling import Tale

READERS = ("trust", "cases")  # of results, beside the log
LOST = Asks("lost", "a question whose result is deleted", "Is there a lift?")
IN_FLIGHT_S = 1.5  # what a reader had asked for before it was stopped comes empty by then
FOUND_S = 60


def observing(tale: Tale) -> None:
    """What must not be possible is tried, settings are read, a restore is drilled; the log records all three."""
    checked = tale.ratchet("evidence", "check")
    failed = [f"{row['what']}: {row['detail']}" for row in checked.row.get("checks", ()) if not row["passed"]]
    many = len(checked.row.get("checks", ()))
    tale.claim(
        f"{many} trials of roles, connections, principals and settings passed", checked.code == 0, "; ".join(failed)
    )
    drill = tale.ratchet("evidence", "drill")
    root = str(drill.row.get("root", ""))[:16]
    tale.claim("a copy of the log, built again from its entries, has the signed root", drill.code == 0, f"{root}…")
    tale.kept["checks"] = {"made": many, "failed": failed}


def violating(tale: Tale) -> None:
    """The log's process is held, a result is deleted that it has not read, and it goes on."""
    with _held(tale, "evidence"):
        told = submit(tale, (LOST,), "lost")
        name = request_id(tale, LOST.name)
        tale.claim("a request is answered while the log is held", told.get(name, {}).get("outcome") == "released")
        found = rows(tale.stage, "results", "result.completed")
        place = next(((row["partition"], row["offset"]) for row in found if row["data"]["request_id"] == name), None)
        if place is None:
            raise Unavailable(f"no result of request {name} was written")
        partition, offset = place
        for group in READERS:
            tale.until(
                lambda group=group: behind(tale.stage, "results", partition, f"ratchet.{group}") > offset,
                30,
                f"{group} has not read the result",
            )
        lose(tale.stage, "results", partition, offset)
        tale.say(f"[red]deleted[/]: {full('results')}[{partition}] up to offset {offset}, which the log has not read")
    told_of: list[dict[str, Any]] = []

    def noticed() -> bool:
        told_of[:] = [row for row in tale.ratchet("evidence", "findings").rows if row.get("kind") == "range-lost"]
        return bool(told_of)

    tale.until(noticed, FOUND_S, "the log has not noticed that records are gone")
    source = told_of[0]["src"]
    where = f"{source['topic']}[{source['partition']}] offsets {told_of[0]['from']} to {told_of[0]['to']}"
    tale.claim("the log names what it could not read", source["topic"] == full("results"), where)
    violations: list[dict[str, Any]] = []

    def violated() -> bool:
        violations[:] = rows(tale.stage, "audit", "compliance.violation")
        return bool(violations)

    tale.until(violated, FOUND_S, "nobody has announced the violation")
    controls = violations[0]["data"]["controls"]
    tale.claim("and which controls that violates", bool(controls), ", ".join(controls))


@contextmanager
def _held(tale: Tale, process: str) -> Generator[None]:
    """The process stands still meanwhile. It goes on, whatever happens."""
    pid = tale.stage.agent_pids().get(process)
    if pid is None:
        raise Unavailable(f"no process {process} runs")
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(IN_FLIGHT_S)
        tale.say(f"[yellow]SIGSTOP[/] {process} (pid {pid})")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def handling(tale: Tale) -> None:
    """The incident, from its first moment to its end, with its clock."""
    incidents: list[dict[str, Any]] = []

    def opened() -> bool:
        incidents[:] = [row for row in tale.ratchet("incident", "list").rows if row.get("violation") == "range-lost"]
        return bool(incidents)

    tale.until(opened, 30, "no incident was opened")
    name = str(incidents[0]["incident"])
    tale.claim("an incident was opened by itself", incidents[0].get("state") == "detected", name)
    early = tale.ratchet("incident", "close", name, "--reason", "too early", quiet=True)
    tale.claim("it cannot be closed before it was assessed", early.code == 1, str(early.row.get("reason", "")))
    reason = ("--reason", "played by ratchet demo --compliance")
    assessed = tale.ratchet("incident", "assess", name, "--personal-data", "--high-risk", *reason)
    tale.claim("a person assessed it: personal data, high risk", assessed.code == 0)
    shown = tale.ratchet("incident", "show", name).row
    left_ms = int(shown.get("notify_by_ms", 0)) - int(shown.get("aware_at_ms", 0))
    tale.claim("the authority must be told within 72 hours", left_ms == 72 * HOUR_MS, f"{left_ms / HOUR_MS:.0f} hours")
    items = ("--nature", "--contact", "--consequences", "--measures")
    notified = tale.ratchet("incident", "notify", name, *items, *reason)
    tale.claim("the authority was told, in time and with all that a notice has to say", notified.code == 0)
    for step, words in (
        ("tell", "the people concerned were told"),
        ("contain", "it was contained"),
        ("close", "it was closed"),
    ):
        tale.claim(words, tale.ratchet("incident", step, name, *reason).code == 0)
    states = [
        row["type"].removeprefix("incident.")
        for row in rows(tale.stage, "observations")
        if row["type"].startswith("incident.")
    ]
    tale.kept["incident"] = {"name": name, "states": states}
