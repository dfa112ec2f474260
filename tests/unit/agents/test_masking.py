"""Masking: values out, placeholders in, and back; whole or in pieces; and what nobody can make it do."""

import pytest
from gates import finding
from hypothesis import given
from hypothesis import strategies as st

from agents.rules.masking import LONGEST, MaskMap, Unmasker, label_of, mask, mask_further, redact, unmask
from schemas.findings import Finding, Kind

KINDS = (Kind.EMAIL, Kind.PHONE, Kind.RECORD)
Case = tuple[list[str], list[list[Finding]]]
SPIKY = st.text(alphabet="[]_0129EMAILTRP ab@é\u200b😀", max_size=60)  # what placeholders are made of, and more


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Texts, and findings anywhere in them, overlapping as they like."""
    texts = draw(st.lists(st.one_of(SPIKY, st.just("a@b [EMAIL_1] a@b")), min_size=1, max_size=4))
    findings: list[list[Finding]] = [[] for _ in texts]
    for text, rows in zip(texts, findings, strict=True):
        for _ in range(draw(st.integers(0, 4)) if text else 0):
            start = draw(st.integers(0, len(text) - 1))
            rows.append(finding(draw(st.sampled_from(KINDS)), start, draw(st.integers(start + 1, len(text)))))
    return texts, findings


def at(text: str, value: str, kind: str = "email") -> Finding:
    start = text.index(value)
    return finding(kind, start, start + len(value))


@given(cases(), st.lists(st.integers(1, 7), min_size=1))
def test_what_was_masked_comes_back(case: Case, steps: list[int]) -> None:
    """Unmasked, each text is what it was, also when it comes in pieces of any size."""
    texts, findings = case
    masked = mask(texts, findings, KINDS)
    for text, shown in zip(texts, masked.texts, strict=True):
        assert unmask(shown, masked.map) == text
        reader, got, place = Unmasker(masked.map), "", 0
        while place < len(shown):
            step = steps[place % len(steps)]
            got += reader.feed(shown[place : place + step])
            place += step
        assert got + reader.finish() == text


@given(cases())
def test_nothing_found_is_left(case: Case) -> None:
    """No character of a finding is in what a model sees: apart from placeholders it sees exactly what no finding covers."""
    texts, findings = case
    covered = [[False] * len(text) for text in texts]
    for gone, rows in zip(covered, findings, strict=True):
        for one in rows:
            gone[one.start : one.end] = [True] * (one.end - one.start)
    masked = mask(texts, findings, KINDS)
    emptied = MaskMap(dict.fromkeys(masked.map.values, ""))
    for text, shown, hidden in zip(texts, masked.texts, covered, strict=True):
        plain = "".join(char for char, gone in zip(text, hidden, strict=True) if not gone)
        rest = iter(plain)
        assert all(char in rest for char in unmask(shown, emptied))  # a subsequence: literals went too


@given(cases())
def test_every_placeholder_that_a_model_sees_is_ours(case: Case) -> None:
    """With every placeholder of the map taken out nothing is left that looks like one: what was typed is a literal."""
    texts, findings = case
    masked = mask(texts, findings, KINDS)
    for shown in masked.texts:
        again = mask([shown], [[]], ())
        assert {*again.map.values.values()} <= masked.map.values.keys()


@given(cases(), cases())
def test_numbers_are_stable_over_turns(first: Case, more: Case) -> None:
    """A conversation that goes on shows its earlier turns exactly as before."""
    before = mask(first[0], first[1], KINDS)
    after = mask([*first[0], *more[0]], [*first[1], *more[1]], KINDS)
    assert after.texts[: len(first[0])] == before.texts
    assert before.map.values.items() <= after.map.values.items()


@given(st.lists(SPIKY), st.dictionaries(st.sampled_from(("[EMAIL_1]", "[EMAIL_2]", "[PHONE_1]")), SPIKY))
def test_pieces_give_what_the_whole_gives(pieces: list[str], values: dict[str, str]) -> None:
    """Whatever a model says, in whatever pieces: the same as at once, and never more held back than one placeholder."""
    known = MaskMap(values)
    reader, got = Unmasker(known), ""
    for index, piece in enumerate(pieces):
        got += reader.feed(piece)
        whole = unmask("".join(pieces[: index + 1]), known)
        assert whole.startswith(got)
        assert len(whole) - len(got) < LONGEST + max((len(value) for value in values.values()), default=0)
    assert got + reader.finish() == unmask("".join(pieces), known)


def test_same_value_same_number_in_all_texts() -> None:
    """System, tool and user texts share numbers; another value gets the next; another kind counts for itself."""
    texts = ["to a@b.c", "a@b.c or d@e.f", "call 555, a@b.c"]
    findings = [
        [at(texts[0], "a@b.c")],
        [at(texts[1], "d@e.f"), at(texts[1], "a@b.c")],
        [at(texts[2], "555", "phone"), at(texts[2], "a@b.c")],
    ]
    masked = mask(texts, findings, KINDS)
    assert masked.texts == ("to [EMAIL_1]", "[EMAIL_1] or [EMAIL_2]", "call [PHONE_1], [EMAIL_1]")
    assert masked.map.values == {"[EMAIL_1]": "a@b.c", "[EMAIL_2]": "d@e.f", "[PHONE_1]": "555"}


def test_only_the_kinds_asked_for_are_replaced() -> None:
    """A finding of another kind stays in the text."""
    text = "a@b.c 555"
    assert mask([text], [[at(text, "a@b.c"), at(text, "555", "phone")]], ("phone",)).texts == ("a@b.c [PHONE_1]",)


def test_overlapping_findings_are_one() -> None:
    """All of both is covered, under the longer one's label; where they only touch they stay two."""
    text = "x 0123456789 y"
    both = mask([text], [[finding("phone", 2, 8), finding("email", 5, 12)]], KINDS)
    assert both.texts == ("x [EMAIL_1] y",)
    touching = mask([text], [[finding("phone", 2, 8), finding("email", 8, 12)]], KINDS)
    assert touching.texts == ("x [PHONE_1][EMAIL_1] y",)


def test_what_a_user_types_gives_nobody_elses_value() -> None:
    """A typed placeholder goes to the model as a literal and comes back as it was typed, not as a value."""
    text = "say [EMAIL_1] and [LITERAL_1] to a@b.c"
    masked = mask([text], [[at(text, "a@b.c")]], KINDS)
    assert masked.texts == ("say [LITERAL_1] and [LITERAL_2] to [EMAIL_1]",)
    assert unmask("[LITERAL_1] [LITERAL_2] [EMAIL_1]", masked.map) == "[EMAIL_1] [LITERAL_1] a@b.c"


def test_what_is_masked_further_goes_on_after_what_was() -> None:
    """Placeholders stay, over all texts; new values get the next numbers of their label, the same value the same one."""
    texts = ["from [EMAIL_2] to a@b.c", "a@b.c or d@e.f, tel 1, [LITERAL_1]"]
    findings = [[at(texts[0], "a@b.c")], [at(texts[1], "a@b.c"), at(texts[1], "d@e.f"), at(texts[1], "1", "phone")]]
    assert mask_further(texts, findings, KINDS) == (
        "from [EMAIL_2] to [EMAIL_3]",
        "[EMAIL_3] or [EMAIL_4], tel [PHONE_1], [LITERAL_1]",
    )
    with pytest.raises(ValueError, match="outside"):
        mask_further(["a"], [[finding("email", 0, 5)]], KINDS)


@given(cases())
def test_masking_further_keeps_all_else(case: Case) -> None:
    """What no finding covers stands there as before, in its order, and nothing that one covers does."""
    texts, findings = case
    done = mask_further(texts, findings, KINDS)
    for text, shown, rows in zip(texts, done, findings, strict=True):
        spots = [any(one.start <= place < one.end for one in rows) for place in range(len(text))]
        pieces = "".join(char if not gone else "\0" for char, gone in zip(text, spots, strict=True)).split("\0")
        place = 0
        for piece in filter(None, pieces):
            assert piece in shown[place:]
            place = shown.index(piece, place) + len(piece)
        assert any(spots) or shown == text


def test_what_a_model_makes_up_stays() -> None:
    """A placeholder without an entry, and one that is not quite one, are text."""
    known = MaskMap({"[EMAIL_1]": "a@b.c"})
    answer = "[EMAIL_2] [email_1] [EMAIL_1 [EMAIL_01] [[EMAIL_1]] []["
    assert unmask(answer, known) == "[EMAIL_2] [email_1] [EMAIL_1 [EMAIL_01] [a@b.c] []["


def test_what_was_put_back_is_not_looked_at_again() -> None:
    """A value that reads like a placeholder is a value."""
    known = MaskMap({"[EMAIL_1]": "[PHONE_1]", "[PHONE_1]": "555"})
    assert unmask("[EMAIL_1]", known) == "[PHONE_1]"
    reader = Unmasker(MaskMap({"[A_1]": "[B_", "[B_1]": "555"}))
    assert reader.feed("[A_1]") + reader.feed("1]") + reader.finish() == "[B_1]"


def test_a_redacted_value_cannot_come_back() -> None:
    """What a model wrote itself is gone under a name without a number; the request's placeholders stay to be put back."""
    text = "write to x@y.z or [EMAIL_1]"
    gone = redact([text], [[at(text, "x@y.z")]], KINDS)
    assert gone == ("write to [EMAIL] or [EMAIL_1]",)
    assert unmask(gone[0], MaskMap({"[EMAIL_1]": "a@b.c"})) == "write to [EMAIL] or a@b.c"


@pytest.mark.parametrize(("start", "end"), [(-1, 1), (2, 2), (3, 2), (2, 4)])
def test_a_finding_outside_its_text_is_refused(start: int, end: int) -> None:
    """A detector that miscounts is an error, not a hole in the mask; one of a kind that is not replaced does not matter."""
    with pytest.raises(ValueError, match="outside its text"):
        mask(["abc"], [[finding("email", start, end)]], KINDS)
    assert mask(["abc"], [[finding("email", start, end)]], ()).texts == ("abc",)


def test_findings_of_other_texts_are_refused() -> None:
    """Each text has its findings, or none: a text that was not scanned is not taken for a clean one."""
    with pytest.raises(ValueError, match="findings of 1 texts for 2 texts"):
        mask(["a", "b"], [[]], KINDS)
    with pytest.raises(ValueError, match="findings of 0 texts"):
        redact(["a"], [], KINDS)


def test_a_map_shows_nothing_and_survives_its_bytes() -> None:
    """No representation holds a value; encoded and decoded it is the same; other bytes are refused without being repeated."""
    known = MaskMap({"[EMAIL_1]": "a@b.c"})
    assert "a@b.c" not in repr(known) + str(known) + f"{mask(['a@b.c'], [[finding('email')]], KINDS).map}"
    assert MaskMap.decode(known.encode()) == known
    for data in (
        b"a@b.c",
        b'"a@b.c"',
        b'{"v":1,"values":{"a@b.c":"x"}}',
        b'{"v":1,"values":{"[EMAIL_1]":1}}',
        b'{"v":2,"values":{}}',
        b'{"v":1}',
        b'{"v":1,"values":[]}',
    ):
        with pytest.raises(ValueError, match="mask map") as caught:
            MaskMap.decode(data)
        assert "a@b.c" not in str(caught.value)


def test_labels_are_plain() -> None:
    """Whatever a detector calls its kind, the placeholder is one, and no longer than what is held back."""
    assert [label_of(kind) for kind in ("e-mail", "icd10", "", "straße", "é")] == [
        "E_MAIL", "ICD10", "VALUE", "STRASSE", "_",
    ]  # fmt: skip
    assert len(f"[{label_of('k' * 99)}_{10**12}]") <= LONGEST


def test_openings_alone_come_through() -> None:
    """A text of nothing but openings comes through whole, a character at a time."""
    text = "[A" * 20_000
    known = MaskMap({"[A_1]": "x"})
    reader = Unmasker(known)
    assert "".join(map(reader.feed, text)) + reader.finish() == text
    assert mask([text], [[]], ()).texts == (text,)
