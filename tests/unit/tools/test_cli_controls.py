"""`ratchet evidence controls` on a log in a folder: results, files, statements, exit codes."""

import asyncio
import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from evidenced import Book, told

from agents.evidence.catalogue import CATALOGUE, CROSSWALK, DEADLINES
from agents.evidence.statements import HEADER
from infra.notary import LocalNotary
from schemas.tlog import note

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return asyncio.run(told(tmp_path))


def test_the_table(cli: Run, book: Book) -> None:
    """A line a control; nothing fails, so exit 0, and what has no evidence is not said to pass."""
    code, said, _ = cli("evidence", "controls")
    assert code == 0
    for control in CATALOGUE:
        assert control.id in said
    assert "no evidence is no pass" in said
    assert "not-satisfied" not in said


def test_in_json(cli: Run, book: Book) -> None:
    """Every control with its proof, cross-walk and deadlines; the same from a bundle of the log."""
    row = json.loads(cli("evidence", "controls", "--json")[1])
    assert [one["control"] for one in row["controls"]] == [control.id for control in CATALOGUE]
    assert sum(row["counts"].values()) == len(CATALOGUE)
    assert (len(row["deadlines"]), row["crosswalk"]) == (len(DEADLINES), CROSSWALK)
    assert row["size"] == book.size
    assert cli("evidence", "export", "bundle", "--log-only")[0] == 0
    assert json.loads(cli("evidence", "controls", "bundle", "--json")[1]) == row


def test_a_failure_is_a_no(cli: Run, book: Book) -> None:
    """Exit 1, which control, why, and where to look first."""
    book.request(500, parts="da")
    book.close()
    asyncio.run(book.commit())
    code, said, _ = cli("evidence", "controls")
    assert code == 1
    assert "aiact-12: Of an answered request" in said
    assert f"(entry-{book.index['answer-500']})" in said
    assert cli("evidence", "controls", "--json")[0] == 1


def test_the_files(cli: Run, book: Book, tmp_path: Path) -> None:
    """OSCAL and CSV say the same results as the answer; a place that cannot be written is used wrongly."""
    code, said, _ = cli("evidence", "controls", "--oscal", "results.json", "--csv", "results.csv")
    assert (code, "written  results.csv" in said) == (0, True)
    rows = list(csv.DictReader((tmp_path / "results.csv").read_text(encoding="utf-8").splitlines()))
    findings = json.loads((tmp_path / "results.json").read_text())["assessment-results"]["results"][0]["findings"]
    satisfied = {row["control"] for row in rows if row["state"] == "satisfied"}
    assert satisfied
    assert satisfied == {
        one["target"]["target-id"] for one in findings if one["target"]["status"]["state"] == "satisfied"
    }
    assert cli("evidence", "controls", "--csv", "no/such/folder.csv")[0] == 2


def test_statements(cli: Run, book: Book, tmp_path: Path) -> None:
    """A person's signed word counts under the key that was given; without it, and with another, it is used wrongly."""
    ann, bob = (LocalNotary.create(tmp_path / f"{name}.key", f"dev.{name}") for name in ("ann", "bob"))
    lines = (
        {"control": "soc2-cc1", "says": "reviewed", "until": "2027-06-30", "why": "Read."},
        {"control": "hipaa-164.514.b.2", "says": "not-applicable", "until": "2027-06-30", "why": "No health data."},
    )
    text = "\n".join((HEADER, book.notary.name, *map(json.dumps, lines))) + "\n"
    signature = note.sign_line(note.parse_vkey(ann.vkey(1)), ann.sign(text.encode(), 1))
    (tmp_path / "statements").write_text(f"{text}\n{signature}")
    code, said, _ = cli("evidence", "controls", "--statements", "statements", "--signer", ann.vkey(1), "--json")
    states = {one["control"]: (one["state"], one["stated_by"]) for one in json.loads(said)["controls"]}
    assert code == 0
    assert states["soc2-cc1"] == ("satisfied", "dev.ann")
    assert states["hipaa-164.514.b.2"] == ("not-applicable", "dev.ann")
    assert states["soc2-cc2"] == ("no-evidence", "")
    shown = cli("evidence", "controls", "--statements", "statements", "--signer", ann.vkey(1), "--oscal", "o.json")[1]
    assert "No health data. (signed by dev.ann, until 2027-06-30)" in shown
    assert "Stated by dev.ann" in (tmp_path / "o.json").read_text()
    for words in (
        ("--statements", "statements"),
        ("--signer", ann.vkey(1)),
        ("--statements", "statements", "--signer", bob.vkey(1)),
        ("--statements", "nowhere", "--signer", ann.vkey(1)),
        ("--statements", "statements", "--signer", "ann"),
    ):
        assert cli("evidence", "controls", *words)[0] == 2, words


def test_without_a_log(cli: Run, tmp_path: Path) -> None:
    """No log is here, or none with records: something is away."""
    assert cli("evidence", "controls")[0] == 3
    book = Book.new(tmp_path)
    book.close()
    asyncio.run(book.commit())
    code, _, said = cli("evidence", "controls")
    assert (code, "nothing to assess" in said) == (3, True)


def test_a_tenants_bundle_cannot_be_assessed(cli: Run, book: Book, tmp_path: Path) -> None:
    """What is withheld cannot be judged: it says so instead of passing what it sees."""
    assert cli("evidence", "export", "bundle", "--log-only")[0] == 0
    (tmp_path / "bundle/disclosed").mkdir()
    for path in sorted((tmp_path / "bundle/tile/entries").iterdir()):
        if path.is_file():
            path.unlink()
    code, _, said = cli("evidence", "controls", "bundle")
    assert (code, "withholds" in said) == (2, True)


PERSONAL = [control.id for control in CATALOGUE if control.check == "person"]


def stated(
    cli: Run, control: str, *words: str, result: str = "satisfied", until: str = "2999-12-31"
) -> tuple[int, str, str]:
    return cli(
        "evidence", "sign", control, "--result", result, "--until", until, "--reason", "Read it.", "--as", "ann", *words
    )


def test_a_person_signs_what_no_log_shows(cli: Run, book: Book, tmp_path: Path) -> None:
    """With commands alone: each control of a person's becomes satisfied, one that has no case not applicable, all in one file."""
    for control in PERSONAL:
        code, said, _ = stated(cli, control, "--json")
        assert code == 0
    row = json.loads(said)
    assert stated(cli, "hipaa-164.514.b.2", result="not-applicable")[0] == 0
    key = tmp_path / "statements/ann.key"
    assert (row["file"], key.stat().st_mode & 0o777) == (str(tmp_path / "statements/ann.note"), 0o600)
    code, said, _ = cli("evidence", "controls", "--statements", row["file"], "--signer", row["signer"], "--json")
    states = {one["control"]: (one["state"], one["stated_by"]) for one in json.loads(said)["controls"]}
    assert code == 0
    assert {states[control] for control in PERSONAL} == {("satisfied", "dev.ann")}
    assert states["hipaa-164.514.b.2"] == ("not-applicable", "dev.ann")
    assert set(PERSONAL) >= {f"soc2-cc{number}" for number in range(1, 6)}


def test_a_statement_is_renewed(cli: Run, book: Book, tmp_path: Path) -> None:
    """A later one about the same control stands in its place; the answer says how to use it."""
    for until in ("2998-01-01", "2999-01-01"):
        code, said, _ = stated(cli, "soc2-cc1", until=until)
    assert (code, "--signer dev.ann+" in said) == (0, True)
    text = (tmp_path / "statements/ann.note").read_text()
    assert (text.count("soc2-cc1"), "2999-01-01" in text, "2998" in text) == (1, True, False)


def test_what_is_not_signed(cli: Run, book: Book, tmp_path: Path) -> None:
    """A control that the log shows, one that is none, a day that is over or no day: used wrongly, by name, and nothing changes."""
    assert stated(cli, "soc2-cc1")[0] == 0
    before = (tmp_path / "statements/ann.note").read_bytes()
    for control, until, word in (
        ("gdpr-9", "2999-12-31", "shown by the log"),
        ("soc2-cc99", "2999-12-31", "soc2-cc99"),
        ("soc2-cc2", "2020-01-01", "2020-01-01 is over"),
        ("soc2-cc2", "soon", "soon"),
    ):
        code, _, said = stated(cli, control, until=until)
        assert (code, word in said) == (2, True), said
    assert (tmp_path / "statements/ann.note").read_bytes() == before


def test_anothers_file_is_not_signed_over(cli: Run, book: Book, tmp_path: Path) -> None:
    """Statements of one person are not taken up by another; a key file that others can read is refused."""
    assert stated(cli, "soc2-cc1")[0] == 0
    file = str(tmp_path / "statements/ann.note")
    assert stated(cli, "soc2-cc2", "--statements", file, "--as", "bob")[0] == 2
    assert "soc2-cc2" not in (tmp_path / "statements/ann.note").read_text()
    (tmp_path / "statements/ann.key").chmod(0o644)
    assert stated(cli, "soc2-cc2")[0] == 2
