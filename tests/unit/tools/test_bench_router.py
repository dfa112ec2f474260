"""`ratchet bench router --format routellm`: what it reads, that nothing leaks, and that its curve is the curve."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from schemas.errors import Refused
from tools.bench import router, router_routellm
from tools.bench.router_curve import figures, recovered
from tools.bench.router_data import Outcomes, read
from tools.bench.router_routellm import FOLDS, folds_of, measured, options_of, split_of
from tools.bench.router_rules import Texts, ours, tfidf_lr_gain, words_of

HARD, EASY = ["integral", "theorem", "eigenvalue", "lemma", "matrix"], ["cat", "dog", "colour", "lunch", "garden"]
FILL = ["the", "of", "a", "with", "what", "is", "our", "your", "one", "many", "when", "who", "where", "why"]
HEADER = ("prompt", "weak/model", "strong/model")


def drawn(rows: int, seed: int = 0) -> list[tuple[str, bool, bool]]:
    """Hard and easy prompts: of the hard ones the weak model is never right."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(rows):
        hard = rng.random() < 0.5
        prompt = " ".join(rng.choice([*(HARD if hard else EASY), *FILL], size=10)) + "?"
        made.append((prompt, bool(not hard and rng.random() < 0.85), bool(rng.random() < 0.85)))
    return made


def written(
    folder: Path, rows: Sequence[Sequence[object]], name: str = "all.csv", header: Sequence[str] = HEADER
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return folder


def outcomes_of(rows: Sequence[tuple[str, bool, bool]], files: int = 1) -> Outcomes:
    prompts, weak, strong = zip(*rows, strict=True)
    return Outcomes(
        prompts, np.array(weak, np.int8), np.array(strong, np.int8), np.arange(len(rows)) % files,
        tuple(f"f{n}" for n in range(files)), 0,
    )  # fmt: skip


def silent(words: str) -> None:
    pass


def test_the_first_two_boolean_columns_are_weak_and_strong(tmp_path: Path) -> None:
    """An index, long responses, any spelling of a boolean, columns that come after: the names do not matter, the order does."""
    rows = [
        (0, "TRUE", "x" * 300_000, "why?", "0", "True"),
        (1, "false", "", 'a "b",\nc', "1", "False"),
        (2, "True", "True", "ü", "1", "False"),
    ]
    folder = written(tmp_path / "d" / "deep", rows, header=("", "m-1", "m-1_response", "prompt", "m-2", "later"))
    found = read(folder.parent)
    assert found.prompts == ("why?", 'a "b",\nc', "ü")
    assert found.weak.tolist() == [1, 0, 1]
    assert found.strong.tolist() == [0, 1, 1]
    assert found.files == ("deep/all",)


@pytest.mark.parametrize("beside", [True, False])
def test_contaminated_prompts_are_dropped(tmp_path: Path, beside: bool) -> None:
    """Listed in the directory or beside it, under any key, whatever the white space: dropped and counted."""
    folder = written(tmp_path / "d", [("a  b\nc", 1, 0), ("d", 1, 1), ("e", 0, 1), ("d", 0, 0)])
    place = tmp_path if beside else folder
    lines = [{"eval_prompt": "a b c", "idx": 3}, {"train_prompt": "d"}]
    (place / "my_contaminated_prompts.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    (place / "other.jsonl").write_text('{"eval_prompt": "e"}\n')
    found = read(folder)
    assert found.prompts == ("e",)
    assert found.dropped == 3


@pytest.mark.parametrize(("text", "why"), [
    ("prompt,a,b\nx,True,maybe\n", r"1 boolean columns; not boolean: 'b' \(line 2\)"),
    ("text,a,b\nx,True,False\n", "0 columns named `prompt`"),
    ("prompt,prompt,b\nx,True,False\n", "2 columns named `prompt`"),
    ("prompt,a,b\nx,True\n", ":2: 2 columns, the header has 3"),
    ("prompt,a,b\n", "no row"),
    ("", "0 columns named `prompt`"),
    ('prompt,a,b\n"x,True,False\n', "cannot be read as CSV"),
])  # fmt: skip
def test_files_of_another_form_are_refused(tmp_path: Path, text: str, why: str) -> None:
    """The file, the place and what is accepted are named; no cell is."""
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(Refused, match=why) as caught:
        read(tmp_path)
    assert "bad.csv" in str(caught.value)
    assert "accepted:" in str(caught.value)
    assert "maybe" not in str(caught.value)


def test_other_bad_input_is_refused(tmp_path: Path) -> None:
    """No directory, no CSV, bytes that are no UTF-8, a list that is no JSON."""
    with pytest.raises(Refused, match="no such directory"):
        read(tmp_path / "none")
    with pytest.raises(Refused, match="no CSV file"):
        read(tmp_path)
    (tmp_path / "a.csv").write_bytes(b"prompt,a,b\n\xff,1,0\n")
    with pytest.raises(Refused, match="cannot be read as CSV"):
        read(tmp_path)
    written(tmp_path, [("x", 1, 0)], "a.csv")
    (tmp_path / "contaminated.jsonl").write_text("{}\nno json\n")
    with pytest.raises(Refused, match=r"contaminated\.jsonl:2: no JSON"):
        read(tmp_path)


@pytest.mark.parametrize("options", [
    [], ["--format", "csv"], ["--format"], ["--format", "routellm"], ["--format", "routellm", "--data", ".", "--labels", "many"],
    ["--format", "routellm", "--data", ".", "--labels", "0"], ["--format", "routellm", "--data", ".", "--fast"],
    ["--format", "routellm", "--data", ".", "--at-least", "2"],
])  # fmt: skip
def test_options_that_are_not_understood_are_refused(options: list[str]) -> None:
    """The usage is in the error."""
    with pytest.raises(Refused, match="ratchet bench router"):
        router.run(options, silent)


def test_what_cannot_be_measured_is_refused() -> None:
    """Too few prompts; a strong model that is no stronger."""
    with pytest.raises(Refused, match="accepted: at least 40 different"):
        measured(outcomes_of([("same", True, False)] * 300), labels=100, seeds=1, say=silent)
    turned = [(prompt, strong, weak) for prompt, weak, strong in drawn(100)]
    with pytest.raises(Refused, match="no gap to recover"):
        measured(outcomes_of(turned), labels=100, seeds=1, say=silent)


def test_the_report_has_every_key(tmp_path: Path) -> None:
    """The contract's keys; one file has no subjects; ours learns what there is to learn."""
    found = router.run(
        ["--format", "routellm", "--data", str(written(tmp_path, drawn(300))), "--labels", "200"], silent
    )
    assert (found["n"], found["dropped"], found["labels"], found["folds"], found["seeds"]) == (300, 0, 200, 5, 5)
    assert found["format"] == "routellm"
    assert found["passed"] is True
    assert found["results"]["subject_mean"] is None
    rules = {"ours", "random", "length", "tfidf_lr_gain", "oracle"}
    assert found["results"].keys() == {*rules, "subject_mean"}
    assert found["paired"].keys() == {f"ours_minus_{rule}" for rule in rules - {"ours"}}
    for rule in rules:
        for metric in ("apgr", "cpt50", "cpt80"):
            line = found["results"][rule][metric]
            assert line["min"] <= line["mean"] <= line["max"]
    apgr = {rule: found["results"][rule]["apgr"]["mean"] for rule in rules}
    assert apgr["oracle"] > apgr["ours"] > apgr["random"] + 0.1
    assert found["paired"]["ours_minus_random"]["apgr"]["mean"] == pytest.approx(
        apgr["ours"] - apgr["random"], abs=2e-6
    )


def test_the_file_is_known_to_one_rule_only() -> None:
    """With two files there is a mean by file, and only that changes when files are named otherwise."""
    rows = drawn(200)
    one = measured(outcomes_of(rows), labels=100, seeds=1, say=silent)["results"]
    two = measured(outcomes_of(rows, files=2), labels=100, seeds=1, say=silent)["results"]
    assert two.pop("subject_mean") is not None
    assert one.pop("subject_mean") is None
    assert one == two


def test_equal_prompts_are_in_one_fold() -> None:
    """Over all seeds: folds of equal size, each prompt in one."""
    groups = np.repeat(np.arange(100), 3)
    for seed in range(5):
        folds = folds_of(groups, seed)
        assert (folds.reshape(100, 3) == folds[::3, None]).all()
        assert np.bincount(folds).tolist() == [60] * FOLDS


def test_a_split_holds_its_fold_out() -> None:
    """Labels come from the other folds, as many as asked or all there are."""
    folds = folds_of(np.arange(100), 0)
    for fold in range(FOLDS):
        split = split_of(folds, 0, fold, 30)
        assert len(set(split.labelled)) == 30
        assert set(split.labelled) <= set(split.others)
        assert sorted(split.others + split.held) == list(range(100))
        assert len(split_of(folds, 0, fold, 1500).labelled) == 80


def test_no_label_that_is_not_given_changes_a_score() -> None:
    """Held-out labels, and those of the other folds that were not drawn, turned around: every score is as before."""
    outcomes = outcomes_of(drawn(300))
    texts = Texts(outcomes.prompts)
    words = words_of(texts.readings)
    split = split_of(folds_of(np.arange(300), 1), 1, 2, 100)
    hidden = np.ones(300, bool)
    hidden[split.labelled] = False
    weak, strong = (
        np.where(hidden, 1 - outcomes.weak, outcomes.weak),
        np.where(hidden, 1 - outcomes.strong, outcomes.strong),
    )
    assert (ours(texts, weak, strong, split) == ours(texts, outcomes.weak, outcomes.strong, split)).all()
    assert (tfidf_lr_gain(words, strong - weak, split) == tfidf_lr_gain(words, outcomes.gain, split)).all()


def test_a_held_out_text_changes_no_other_score() -> None:
    """The basis is made without the held-out texts: another text among them leaves the scores of the rest as they were."""
    rows = drawn(300)
    split = split_of(folds_of(np.arange(300), 1), 1, 2, 100)
    other = [("integral " * 40, *row[1:]) if at == split.held[0] else row for at, row in enumerate(rows)]
    one, two = outcomes_of(rows), outcomes_of(other)
    before = ours(Texts(one.prompts), one.weak, one.strong, split)
    after = ours(Texts(two.prompts), two.weak, two.strong, split)
    assert before[0] != after[0]
    assert (before[1:] == after[1:]).all()


def test_shuffled_labels_are_worth_nothing() -> None:
    """Outcomes dealt out again to other prompts: APGR is that of chance. Several shuffles, for one is as noisy as its gap is small."""
    outcomes, rng = outcomes_of(drawn(1000)), np.random.default_rng(7)
    texts, folds, found = Texts(outcomes.prompts), folds_of(np.arange(1000), 0), []
    for _ in range(4):
        order = rng.permutation(1000)
        weak, strong = outcomes.weak[order], outcomes.strong[order]
        splits = [split_of(folds, 0, fold, 300) for fold in range(FOLDS)]
        curves = [recovered(ours(texts, weak, strong, split), (strong - weak)[split.held]) for split in splits]
        found.append(figures(curves).apgr)
    assert np.mean(found) == pytest.approx(0.5, abs=0.02)


def test_the_curve_is_exact() -> None:
    """By hand: four requests, the two gains first; random order is the diagonal; ties share."""
    gain = np.array([1, 0, 1, 0], np.int8)
    best = recovered(np.array([4.0, 2.0, 3.0, 1.0]), gain)
    assert best.tolist() == [0, 1, 2, 2, 2]
    found = figures([best])
    assert (found.cpt50, found.cpt80) == (pytest.approx(0.25), pytest.approx(0.4))
    assert found.apgr == pytest.approx(0.75)
    tied = figures([recovered(np.zeros(4), gain)])
    assert (tied.apgr, tied.cpt50, tied.cpt80) == (pytest.approx(0.5), pytest.approx(0.5), pytest.approx(0.8))


def test_losses_bend_the_curve_down() -> None:
    """Where the weak model alone is right a call of the strong one costs: the curve rises above 1, then falls back."""
    curve = recovered(np.array([3.0, 2.0, 1.0]), np.array([1, 1, -1], np.int8))
    assert curve.tolist() == [0, 1, 2, 1]
    assert figures([curve]).apgr > 1.0


def test_defaults_are_the_contract() -> None:
    """1,500 labels, five seeds, five folds."""
    assert options_of(["--data", "x"]).labels == 1500
    assert (router_routellm.SEEDS, FOLDS) == (5, 5)
