"""`ratchet basis`: from texts that nobody labelled to the digest that a route file names."""

import itertools
import json

import pytest

from agents.router.basis import Basis
from infra.artifacts import DirectoryStore
from schemas import ids
from schemas.errors import Refused
from schemas.events import CaseClosed, Message, RoutingTerms
from streams.shapes import Record
from tools.cli import basis
from tools.cli.screen import Exit, Screen

WORDS = ("card", "bank", "pay", "lost", "money", "send", "charge", "wrong", "fee", "limit", "open", "close", "help")


def texts(count):
    drawn = (ids.coin(str(number), "word") % len(WORDS) for number in itertools.count())
    return [" ".join(WORDS[next(drawn)] for _ in range(9)) for _ in range(count)]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("RATCHET_STATE_DIR", str(tmp_path))
    return tmp_path


def test_a_file_becomes_a_basis_that_can_be_read_again(home, tmp_path, capsys):
    """The digest is that of the stored bytes; the same file gives the same one."""
    file = tmp_path / "requests.jsonl"
    rows = [
        {"prompt": text} if number % 2 else {"messages": [{"role": "user", "content": text}]}
        for number, text in enumerate(texts(300))
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert basis.offline(Screen(as_json=True), "r", file, 1) == Exit.DONE
    told = json.loads(capsys.readouterr().out)
    assert Basis.from_bytes(DirectoryStore(home / "artifacts").get_bytes(told["basis"])).digest == told["basis"]
    assert basis.offline(Screen(as_json=True), "r", file, 1) == Exit.DONE
    assert json.loads(capsys.readouterr().out)["basis"] == told["basis"]


def test_too_few_texts_are_said(home, tmp_path, capsys):
    """Exit 1 and how many it takes; a line that is no request is named."""
    file = tmp_path / "few.jsonl"
    file.write_text('{"prompt": "one"}\n')
    assert basis.offline(Screen(as_json=True), "r", file, 1) == Exit.NO
    assert json.loads(capsys.readouterr().out)["basis"] is None
    file.write_text('{"prompt": "one"}\n[]\n')
    with pytest.raises(Refused, match="line 2"):
        basis.offline(Screen(as_json=True), "r", file, 1)


def test_personal_texts_stay_out():
    """A basis is kept: what was personal when it was decided is not read."""

    def record(number, level):
        case = CaseClosed(
            at_ms=1, route="r", request_id=f"q{number}", request_partition=0, request_offset=1, decision_id="d",
            assigned_at_ms=1, window_end_ms=2, arm="a", why="complete", arms=(), choices=(), grader="verdict",
            messages=(Message(role="system", content="be kind"), Message(role="user", content=f"text {level}")),
            routing=None if level is None else RoutingTerms(strategy="balanced", sensitivity=level),
        )  # fmt: skip
        headers = (("ce_type", CaseClosed.ce_type().encode()),)
        return Record("ratchet.cases", 0, number, b"r", case.model_dump_json().encode(), headers, 1)

    levels = (None, "public", "internal", "personal", "secret")
    rows = [record(number, level) for number, level in enumerate(levels)]
    assert [*basis._of_cases(rows, "r")] == ["text None", "text public", "text internal"]
    assert [*basis._of_cases(rows, "other")] == []
