"""The last acts: the controls as the log shows them, the bundle, and a stranger's look at it."""

import asyncio
import shutil
from collections import Counter
from typing import Any

from rich.table import Table

from tools.demo.audit import accepted
from tools.demo.compliance.gated import request_id
from tools.demo.compliance.story import TENANT
from tools.demo.compliance.telling import Tale

SHOWN = ("soc2-cc6.1", "soc2-cc6.6", "soc2-cc7.2", "soc2-a1.2", "gdpr-5", "gdpr-6", "gdpr-9", "gdpr-15", "gdpr-17", "gdpr-32", "gdpr-33",
         "gdpr-34", "gdpr-44", "hipaa-164.312.a", "hipaa-164.312.b", "hipaa-164.312.e", "aiact-50")  # fmt: skip
SATISFIED = (
    "soc2-cc6.1",
    "soc2-cc6.6",
    "soc2-a1.3",
    "gdpr-6",
    "gdpr-17",
    "gdpr-33",
    "gdpr-34",
    "hipaa-164.312.d",
    "aiact-50",
)


def controls(tale: Tale) -> None:
    """The table. What was violated must show as that."""
    said = tale.ratchet("evidence", "controls", quiet=True)
    found: list[dict[str, Any]] = said.row.get("controls", [])
    state = {str(row["control"]): str(row["state"]) for row in found}
    table = Table(box=None, pad_edge=False)
    for column in ("control", "result", "what"):
        table.add_column(column)
    for row in found:
        if row["control"] in SHOWN or state[row["control"]] == "not-satisfied":
            table.add_row(row["control"], state[row["control"]], str(row.get("title", "")))
    tale.console.print(table)
    counts = Counter(state.values())
    tale.say(", ".join(f"{count} {word}" for word, count in sorted(counts.items())) + "; no evidence is no pass")
    lacking = [f"{name} {state.get(name, 'is not there')}" for name in SATISFIED if state.get(name) != "satisfied"]
    tale.claim("what was tried, told, erased and marked satisfies its controls", not lacking, ", ".join(lacking))
    violated = [name for name in state if state[name] == "not-satisfied"]
    tale.claim("what was lost is not hidden: its controls are not satisfied", bool(violated), ", ".join(violated))
    tale.kept["controls"] = dict(counts)


def proving(tale: Tale) -> None:
    """Export, verify, change one bit, verify again; and the clinic's own bundle."""
    out = tale.folder / "evidence"
    said = asyncio.run(tale.stage.evidence(out, request_id(tale, "card")))
    tale.claim(
        "the exported bundle is accepted offline",
        accepted(said),
        "; ".join((f"{said.get('size', '?')} entries", *(str(row) for row in said.get("problems") or ()))),
    )
    tale.claim("and refused with one bit changed", bool(said.get("refused")), str(said.get("refused", "")))
    own = tale.folder / "evidence-clinic"
    shutil.rmtree(own, ignore_errors=True)
    exported = tale.ratchet("evidence", "export", str(own), "--tenant", TENANT)
    verified = tale.ratchet("evidence", "verify", str(own), "--policy", str(tale.stage.state / "evidence.policy"))
    tale.claim("so is the clinic's own, all others' entries withheld", exported.code == 0 and verified.code == 0)
    tale.kept["evidence"] = said
