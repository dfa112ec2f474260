"""The gate between cases and training rows: what is masked, what is left out, and that nothing goes through where nobody looked."""

import json
from pathlib import Path
from typing import Any

import pytest
from trained import LEARNS, Keys, Library, Range, Sent, T, Tenants, order, ports

from agents.rules import deid
from agents.rules.curation_gate import asked_to_train
from agents.rules.gate import Book
from agents.rules.gate_standard import STANDARD
from agents.screen import Screen
from agents.trainer import job
from infra.artifacts import DirectoryStore
from schemas.compliance import DeidApplied
from schemas.events import CaseArm, CaseClosed, Message, TrainingCompleted, TrainingFailed
from schemas.findings import Finding, Kind
from schemas.gate import Exemption, Flow, GateTenant

BOOK = Book.of(STANDARD)
CARD = "4111 1111 1111 1111"


def case(number: int, text: str = "", label: str = "", **changes: Any) -> CaseClosed:
    told: dict[str, Any] = {
        "at_ms": T, "route": "r", "request_id": f"q{number}", "request_partition": 0, "request_offset": number,
        "decision_id": f"d{number}", "assigned_at_ms": T + number, "window_end_ms": T, "arm": "old", "why": "complete",
        "messages": (Message(role="user", content=text or f"text {number}"),), "choices": (), "grader": "reference",
        "arms": (CaseArm(arm="old", shadow=False, status="completed", grade=0),), "verdict_at_ms": T + number,
        "label": label or f"class {number % 2}", "verdict_kind": "reference",
    }  # fmt: skip
    return CaseClosed.model_validate(told | changes)


async def ran(folder: Path, *special: CaseClosed, **changes: Any) -> tuple[Library, list[Any], dict[str, Any]]:
    """A job over forty harmless cases and `special` ones: the library, the facts, and the stored rows by request id."""
    cases = {number: case(number) for number in range(40)}
    cases |= {100 + number: one for number, one in enumerate(special)}
    library, sent, store = Library(), Sent(), DirectoryStore(folder / "store")
    told = changes.pop("order", None) or order(compliance="standard")
    work = ports(cases=Range(cases), artifacts=store, trainings=library, facts=sent, **changes)
    rows: dict[str, Any] = {}
    if await job.run(told, work):
        tree = store.verify_tree(sent.facts[-1].dataset)  # type: ignore[attr-defined]
        lines = [line for file in sorted(tree.glob("*.jsonl")) for line in file.read_text().splitlines()]
        rows = {row["request_id"]: row for row in map(json.loads, lines)}
    return library, sent.facts, rows


async def test_what_must_be_masked_is_masked_in_text_and_label(tmp_path: Path) -> None:
    """A correction's address gets a placeholder behind those that the router gave; the same value has one number in both."""
    one = case(900, "I am [EMAIL_1], mail b@example.org", "Write to b@example.org or c@example.org")
    library, facts, rows = await ran(tmp_path, one)
    assert rows["q900"]["text"] == "I am [EMAIL_1], mail [EMAIL_2]"
    assert rows["q900"]["label"] == "Write to [EMAIL_2] or [EMAIL_3]"
    assert rows["q1"]["text"] == "text 1"
    assert (facts[-1].rows, facts[-1].denied) == (41, 0)
    assert not any("@" in row.text + row.label for row in library.trained)


@pytest.mark.parametrize(
    "row",
    [
        case(900, f"my card is {CARD}"),
        case(900, "hello", f"your card is {CARD}"),
        case(900, "hello", "the key is AKIAIOSFODNN7EXAMPLQ"),
        case(900, "x" * 50_001),
    ],
    ids=["account", "account in the label", "secret", "too long"],
)
async def test_what_is_denied_is_left_out_and_counted(tmp_path: Path, row: CaseClosed) -> None:
    """No such row is stored or trained on, the fact and the manifest count it, and the other rows are used."""
    library, facts, rows = await ran(tmp_path, row)
    assert "q900" not in rows
    assert all(one.request_id != "q900" for one in library.trained)
    assert (facts[-1].rows, facts[-1].denied) == (40, 1)
    stored = b"".join(path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file())
    assert CARD.encode() not in stored
    assert b'"denied by the gate": 1' in stored


def _fails(text: str) -> list[Finding]:
    if text == "text 7":
        raise RuntimeError(text)
    return [Finding(Kind.EMAIL, 90, 95, "miscounts")] if text == "text 8" else []


async def test_a_row_that_was_not_scanned_whole_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A detector that raises, or finds something outside the text: these two rows are denied; no log says what stood there."""
    _, facts, rows = await ran(tmp_path, screen=Screen(_fails, lambda: 0.0))
    assert {"q7", "q8"}.isdisjoint(rows)
    assert (facts[-1].rows, facts[-1].denied) == (38, 2)
    assert "text 7" not in caplog.text


async def test_a_scan_that_takes_too_long_denies(tmp_path: Path) -> None:
    """A clock on which every scan takes a second: no row is left, and the job says so."""
    now = iter(range(10_000_000))
    _, facts, rows = await ran(tmp_path, screen=Screen(lambda _: [], lambda: float(next(now))))
    assert rows == {}
    assert isinstance(facts[-1], TrainingFailed)
    assert "'denied by the gate': 40" in facts[-1].reason


async def test_without_configuration_nothing_is_trained(tmp_path: Path) -> None:
    """`training.failed` names the tenant and what would be accepted; nothing is stored."""
    _, facts, _ = await ran(tmp_path, tenants=Tenants())
    assert isinstance(facts[-1], TrainingFailed)
    assert "nothing is configured for tenant 'default'" in facts[-1].reason
    assert "ratchet tenant apply" in facts[-1].reason
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    "tenant",
    [
        LEARNS.model_copy(update={"purposes": {"service": ("consent",)}}),
        LEARNS.model_copy(update={"purposes": {"training": ("contract",)}}),
        LEARNS.model_copy(update={"notice": None}),
        LEARNS.model_copy(update={"flows": (Flow(origin="eu", region="us-east"),)}),
        LEARNS.model_copy(update={"flows": (Flow(origin="eu", region="eu-west", until_ms=T),)}),
    ],
    ids=["no purpose", "no fitting basis", "no notice", "another region", "a flow that has ended"],
)
async def test_what_is_not_permitted_leaves_no_row(tmp_path: Path, tenant: GateTenant) -> None:
    """Each permission that is missing denies every row."""
    _, facts, _ = await ran(tmp_path, tenants=Tenants(tenant))
    assert isinstance(facts[-1], TrainingFailed)
    assert "'denied by the gate': 40" in facts[-1].reason


async def test_confined_rows_are_trained_on_only_where_the_job_is_private(tmp_path: Path) -> None:
    """Health data that a tenant's exemption confines: left out, unless the tenant names the trainer among its private arms."""
    exempt = Exemption(id="x", rule="gdpr-9", then="confine", where=("curation",), until_ms=T + 10**9)
    tenant = LEARNS.model_copy(update={"exemptions": (exempt,)})
    row = case(900, "the patient has diabetes")
    _, _, rows = await ran(tmp_path, row, tenants=Tenants(tenant))
    assert "q900" not in rows
    trusted = tenant.model_copy(update={"private_arms": ("trainer",)})
    _, _, rows = await ran(tmp_path, row, tenants=Tenants(trusted))
    assert "q900" in rows


async def test_without_a_gate_nobody_looks(tmp_path: Path) -> None:
    """A route with compliance `off`: rows as they are, no configuration asked for, no detector run."""

    def never(text: str) -> list[Finding]:
        raise AssertionError("nobody was to look")

    off = {"tenants": Tenants(off=True), "screen": Screen(never, lambda: 0.0)}
    _, facts, rows = await ran(tmp_path, case(900, f"my card is {CARD}"), order=order(), **off)
    assert CARD in rows["q900"]["text"]
    assert isinstance(facts[-1], TrainingCompleted)
    assert facts[-1].denied == 0


async def test_under_hipaa_a_training_says_what_was_removed(tmp_path: Path) -> None:
    """`deid.applied` before `training.completed`, of the same data set, with all 18 classes accounted for; for other tenants none."""
    clinic = LEARNS.model_copy(update={"hipaa": True})
    special = case(900, "call +1 415 555 2671 on 2024-03-05"), case(901, f"card {CARD}")
    _, facts, rows = await ran(tmp_path, *special, tenants=Tenants(clinic))
    said, done = facts[-2], facts[-1]
    assert isinstance(said, DeidApplied)
    assert (said.order_id, said.dataset, said.rows) == (done.order_id, done.dataset, 41)
    assert (said.masked, said.denied) == (1, 1)
    assert said.classes + len(said.unsupported) == 18
    assert {"names", "places", "photos"} <= set(said.unsupported)
    assert "2671" not in rows["q900"]["text"]
    assert "2024" not in rows["q900"]["text"]
    _, facts, _ = await ran(tmp_path, *special)
    assert not any(isinstance(fact, DeidApplied) for fact in facts)


def test_classes_that_a_tenant_lets_through_are_not_removed() -> None:
    """There are 18; an exemption or a threshold takes a class away from those that are removed."""
    assert len(deid.CLASSES) == 18
    clinic = LEARNS.model_copy(update={"hipaa": True})

    def lacking(tenant: GateTenant) -> set[str]:
        return set(deid.unsupported(asked_to_train(tenant, "eu-west", BOOK, T), tenant, BOOK, T))

    whole = lacking(clinic)
    exempt = Exemption(id="x", rule="hipaa-164.514.b.2", then="allow", kinds=("date",), until_ms=T + 1)
    assert lacking(clinic.model_copy(update={"exemptions": (exempt,)})) == whole | {"dates"}
    assert lacking(clinic.model_copy(update={"thresholds": {"phone": 700}})) == whole | {"phone", "fax"}


async def test_an_erased_row_counts_for_the_keyring_before_the_gate_sees_it(tmp_path: Path) -> None:
    """A subject that is erased or has no key: its rows are no candidates, and are counted by why."""
    ann, ben = "a" * 32, "b" * 32
    keys = Keys()
    keys.cuts[ann], keys.unseen = [901], {ben}
    special = [case(900 + n, subject=who) for n, who in enumerate((ann, ann, ben))]
    _, _, rows = await ran(tmp_path, *special, keys=keys)
    assert {"q900", "q901", "q902"} & rows.keys() == {"q901"}, "what came after the erasure is another matter"
    stored = [path.read_text() for path in (tmp_path / "store" / "trees").rglob("manifest.json")]
    assert ['"of erased subjects": 1' in text and '"of subjects without a key": 1' in text for text in stored] == [True]


async def test_a_keyring_that_is_away_ends_the_job(tmp_path: Path) -> None:
    """Nobody can say who is erased: nothing is trained."""
    keys = Keys()
    keys.away = True
    _, facts, _ = await ran(tmp_path, case(900, subject="a" * 32), keys=keys)
    assert isinstance(facts[-1], TrainingFailed)
    assert "keyring" in facts[-1].reason
