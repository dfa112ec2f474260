"""A file of the outcomes format: what is read, and how anything else is refused."""

import gzip
from pathlib import Path

import pytest

from schemas.errors import Refused
from tools.bench import main
from tools.bench.outcomes import NONE, read

HEAD = "question_id,category,n_options,answer,a:b:pred,a:b:chars,two:pred,two:chars\n"
ROWS = "1,math,4,B,B,10,,20\n2,law,10,J,A,11,J,21\n"


def written(folder: Path, text: str | bytes, name: str = "o.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("name", ["o.csv", "o.csv.gz"])
def test_a_file_is_read(name: str, tmp_path: Path) -> None:
    """Plain or gzip; a name ends at the last colon; an empty answer is wrong and has no option."""
    raw = (HEAD + ROWS).encode()
    found = read(written(tmp_path, gzip.compress(raw) if name.endswith(".gz") else raw, name))
    assert found.rows == 2
    assert list(found.models) == ["a:b", "two"]
    assert found.category == ("math", "law")
    assert found.models["a:b"].right.tolist() == [True, False]
    assert found.models["two"].pred.tolist() == [NONE, 9]
    assert found.models["two"].chars.tolist() == [20, 21]
    assert found.best() == ["a:b", "two"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"line 1: nothing in it; accepted: a header"),
        (HEAD, r"no question after the header"),
        ("id,category,n_options,answer\n", r"line 1: the header begins .*; accepted: question_id"),
        ("question_id,category,n_options,answer\n1,m,4,A\n", r"line 1: no model"),
        (HEAD.replace("two:chars", "chars"), r"line 1, column 'chars': no column of a model"),
        (HEAD.replace("two:chars", "two:text"), r"column 'two:text'.*NAME:pred or NAME:chars"),
        (HEAD.replace("two:chars", "two:pred"), r"column 'two:pred': the column is there twice"),
        (HEAD.replace(",two:chars", ""), r"column 'two:chars': the column is missing"),
        (HEAD + ROWS + "3,math,4\n", r"line 4: 3 columns; accepted: 8"),
        (HEAD + ROWS + "1,math,4,A,A,1,A,1\n", r"line 4, column 'question_id': '1'; accepted: an id that no earlier"),
        (HEAD + "1,,4,A,A,1,A,1\n", r"line 2, column 'category'"),
        (HEAD + "1,m,four,A,A,1,A,1\n", r"line 2, column 'n_options': 'four'; accepted: a whole number, 2 to 26"),
        (HEAD + "1,m,27,A,A,1,A,1\n", r"column 'n_options': '27'"),
        (HEAD + "1,m,4,E,A,1,A,1\n", r"line 2, column 'answer': 'E'; accepted: an option's letter, A to D"),
        (HEAD + "1,m,4,,A,1,A,1\n", r"column 'answer': ''"),
        (
            HEAD + "1,m,4,A,a,1,A,1\n",
            r"line 2, column 'a:b:pred': 'a'; accepted: an option's letter, A to Z, or nothing",
        ),
        (HEAD + "1,m,4,A,A,-1,A,1\n", r"line 2, column 'a:b:chars': '-1'"),
        (HEAD + "1,m,4,A,A,1,A,1.5\n", r"column 'two:chars': '1.5'"),
        (HEAD + "1,m,4,A,A,,A,1\n", r"column 'a:b:chars': ''"),
        (HEAD.encode() + b"1,m\xff,4,A,A,1,A,1\n", r"not UTF-8"),
        (HEAD + '1,"m,4,A,A,1,A,1\n', r"not CSV"),
    ],
)
def test_anything_else_is_refused(text: str | bytes, said: str, tmp_path: Path) -> None:
    """The message names file, line, column and what is accepted."""
    path = written(tmp_path, text)
    with pytest.raises(Refused, match=said) as refused:
        read(path)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize("cut", [True, False])
def test_a_broken_gzip_is_refused(cut: bool, tmp_path: Path) -> None:
    """What was cut off, and what is no gzip."""
    raw = gzip.compress((HEAD + ROWS).encode())[:-12] if cut else b"no gzip"
    with pytest.raises(Refused, match="not gzip, or cut off"):
        read(written(tmp_path, raw, "o.csv.gz"))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """Its name is in the message."""
    with pytest.raises(Refused, match=r"none\.csv: cannot be read"):
        read(tmp_path / "none.csv")


@pytest.mark.parametrize("bench", ["judge", "trust"])
def test_the_command_ends_with_2(bench: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bad input is a wrong call, said on standard error."""
    path = written(tmp_path, HEAD + "1,m,4,E,A,1,A,1\n")
    assert main(bench, ["--data", str(path)], as_json=True) == 2
    caught = capsys.readouterr()
    assert caught.out == ""
    assert "column 'answer'" in caught.err
