"""A data set as files: sealed per subject, the same for the same rows, opened where it may be; and probes that are nobody's."""

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trained import Keys, order

from agents.rules.curation import Dataset, Row
from agents.trainer.dataset import Kept, Opens, Whose, read, whose, write
from agents.trainer.probes import MOST, OURS, probe_texts
from infra.artifacts import tree_manifest
from schemas.compliance import CommandForget, Cut
from schemas.errors import Refused, SubjectErased

ANN, BEN = "a" * 32, "b" * 32


def row(number: int, subject: str | None = None, label: str = "card") -> Row:
    return Row(f"text {number} ä", label, f"q{number}", f"d{number}", 1, 1, True, subject, 0, number)


ROWS = Dataset((row(1, ANN), row(2), row(3, BEN)), (row(4, ANN),), (row(5),), {"rows": 5})


def held(keys: Keys, rows: Dataset = ROWS) -> dict[Whose, bytes]:
    names = [name for one in rows.rows if (name := whose(one)) is not None]
    found = {name: keys.key("default", name) for name in names}
    return {name: key for name, key in found.items() if isinstance(key, bytes)}


def opens(keys: Keys) -> Opens:
    def key_of(name: Whose) -> bytes:
        key = keys.key("default", name)
        if isinstance(key, str):
            raise SubjectErased(f"{name[0]} is erased", erasure="e1")
        return key

    return key_of


def erased(subject: str) -> Keys:
    keys = Keys()
    cut = (Cut(partition=0, offset=99),)
    keys.erase(CommandForget(route="r", at_ms=1, subject=subject, erasure="e1", cut=cut))
    return keys


def test_a_row_with_a_subject_is_sealed_and_opens_with_its_key(tmp_path: Path) -> None:
    """Neither text nor label stand in the files, rows of nobody do; who has the keys reads all as it was."""
    keys = Keys()
    folder = write(tmp_path / "rows", ROWS, order(), held(keys))
    lines = (folder / "train.jsonl").read_text().splitlines()
    assert ["text 1" in line or "card" in line for line in lines] == [False, True, False]
    assert [(one.part, one.request_id, one.text, one.label) for one in read(folder, opens(keys))] == [
        ("train", "q1", "text 1 ä", "card"),
        ("train", "q2", "text 2 ä", "card"),
        ("train", "q3", "text 3 ä", "card"),
        ("validation", "q4", "text 4 ä", "card"),
        ("test", "q5", "text 5 ä", "card"),
    ]


def test_who_is_erased_is_said_to_be(tmp_path: Path) -> None:
    """After the erasure the subject's rows have no text, and everybody else's open as before."""
    folder = write(tmp_path / "rows", ROWS, order(), held(Keys()))
    rows = {one.request_id: one for one in read(folder, opens(erased(ANN)))}
    assert rows["q1"] == Kept("train", "q1", ANN, None, None)
    assert rows["q4"].text is None
    assert [rows[name].text for name in ("q2", "q3", "q5")] == ["text 2 ä", "text 3 ä", "text 5 ä"]


def test_the_same_rows_give_the_same_files(tmp_path: Path) -> None:
    """Bit for bit; another text, or another key, gives other files, and no two sealed rows share a nonce."""
    one = write(tmp_path / "one", ROWS, order(), held(Keys()))
    other = write(tmp_path / "other", ROWS, order(), held(Keys()))
    assert tree_manifest(one) == tree_manifest(other)
    changed = dataclasses.replace(ROWS, test=(dataclasses.replace(row(5, ANN), text="new"),))
    third = write(tmp_path / "third", changed, order(), held(Keys(), changed))
    assert tree_manifest(one)["test.jsonl"] != tree_manifest(third)["test.jsonl"]
    sealed = [json.loads(line) for file in third.glob("*.jsonl") for line in file.read_text().splitlines()]
    nonces = [one["sealed"][:16] for one in sealed if "sealed" in one]
    assert len(nonces) == 4
    assert len(set(nonces)) == 4


@pytest.mark.parametrize("change", ["request", "tenant", "subject", "damage", "no base64"])
def test_a_row_opens_only_where_it_was_sealed(tmp_path: Path, change: str) -> None:
    """Moved to another request, tenant or subject, or damaged: refused with file and line, never with the text."""
    folder = write(tmp_path / "rows", ROWS, order(), held(Keys()))
    file = folder / "train.jsonl"
    first, *rest = map(json.loads, file.read_text().splitlines())
    if change == "request":
        first["request_id"] = "q9"
    elif change == "subject":
        first["subject"] = BEN
    elif change == "tenant":
        manifest = folder / "manifest.json"
        manifest.write_text(manifest.read_text().replace('"default"', '"other"'))
    else:
        first["sealed"] = first["sealed"][:-8] + ("AAAAAAA=" if change == "damage" else "ä")
    file.write_text("".join(json.dumps(line) + "\n" for line in (first, *rest)))
    with pytest.raises(Refused, match=r"train\.jsonl line 1: .*do not open") as refused:
        list(read(folder, opens(Keys())))
    assert refused.value.kind == "sealed"


def test_a_line_that_is_no_row_is_refused(tmp_path: Path) -> None:
    """File and line are named, and what would be accepted."""
    folder = write(tmp_path / "rows", ROWS, order(), held(Keys()))
    (folder / "test.jsonl").write_text('{"text": "a", "request_id": "q"}\n')
    with pytest.raises(Refused, match=r"test\.jsonl line 1 is no row; accepted"):
        list(read(folder, opens(Keys())))


ROW = st.builds(
    row, st.integers(0, 500), st.sampled_from([None, *(char * 32 for char in "abcdef")]), st.sampled_from("xyz")
)


@given(st.lists(ROW, max_size=60))
def test_probes_are_nobodys(rows: list[Row]) -> None:
    """No text of a row with a subject, and no label but those that three people share; there always are some."""
    dataset = Dataset(tuple(rows[::3]), tuple(rows[1::3]), tuple(rows[2::3]))
    texts = probe_texts(dataset)
    assert 0 < len(texts) <= MOST
    plain = {one.text for one in rows if one.subject is None}
    for text in texts:
        people = {one.subject or one.request_id for one in rows if one.label == text}
        assert text in plain or text in OURS or len(people) >= 3
    assert texts == probe_texts(dataset)


def test_rows_of_nobody_are_probed_first() -> None:
    """Where there are enough of them, nothing else is."""
    dataset = Dataset((), tuple(row(number) for number in range(100)), ())
    assert probe_texts(dataset) == tuple(f"text {number} ä" for number in range(MOST))
