"""Whose signatures count: policies, witnesses and their times, the log's own trust entries."""

import json
from pathlib import Path

import evidence_bundle as made
import pytest

from tools import verify_evidence as verifier

ENTRIES = made.sound_log(12, made.policy_text())
A, B, C = made.WITNESSES
STRANGER = made.Signer("witness.test/z", 4)


def parsed(text: str, *, strict: bool = False) -> verifier.Policy:
    return verifier.parse_policy(text.encode(), strict=strict)


def judged(tmp_path: Path, log: made.Log, given: str | None = None) -> list[str]:
    folder = tmp_path / str(len(list(tmp_path.iterdir())))
    return verifier.verify(made.write(folder, log.files()), given).problems


def test_a_given_policy_may_be_written_freely() -> None:
    """Comments, blank lines, tabs, URLs, any octets and any order of what is defined before it is used."""
    text = (
        f"# the operator's, by mail\n\n  witness\tk {A.vkey}  https://witness.test/ \n"
        f"\t# \u00fc\nlog {made.LOG.vkey} https://log.test\ngroup g any k\nquorum g"
    )
    policy = verifier.parse_policy(text.encode("latin-1"), strict=False)
    assert (list(policy.witnesses), policy.groups, policy.quorum) == (["k"], {"g": (1, ["k"])}, "g")


LINES = [f"log {made.LOG.vkey}", f"witness a {A.vkey}", f"witness b {B.vkey}"]


@pytest.mark.parametrize(("name", "lines"), [
    ("no quorum", LINES),
    ("no log", [*LINES[1:], "quorum a"]),
    ("two quorums", [*LINES, "quorum a", "quorum a"]),
    ("a quorum of nobody", [*LINES, "quorum z"]),
    ("a quorum before its group", [*LINES, "quorum g", "group g any a"]),
    ("a group before its member", [LINES[0], "group g any a", LINES[1], "quorum g"]),
    ("a group of itself", [*LINES, "group g any g", "quorum g"]),
    ("a group of none", [*LINES, "group g any none", "quorum g"]),
    ("a group without members", [*LINES, "group g any", "quorum g"]),
    ("a group that asks for more than it has", [*LINES, "group g 3 a b", "quorum g"]),
    ("a group that asks for nobody", [*LINES, "group g 0 a b", "quorum g"]),
    ("a group with a number in another spelling", [*LINES, "group g 02 a b", "quorum g"]),
    ("a member twice", [*LINES, "group g any a a", "quorum g"]),
    ("a member of two groups", [*LINES, "group g any a", "group h any a b", "quorum h"]),
    ("a name twice", [*LINES, f"witness a {C.vkey}", "quorum a"]),
    ("a group with a witness's name", [*LINES, "group a any b", "quorum a"]),
    ("a witness called none", [LINES[0], f"witness none {A.vkey}", "quorum none"]),
    ("a witness's key twice", [*LINES, f"witness c {A.vkey}", "quorum a"]),
    ("a log's key twice", [LINES[0], LINES[0], "quorum none"]),
    ("a log with a witness's key", [f"log {A.vkey}", "quorum none"]),
    ("a witness with a log's key", [LINES[0], f"witness a {made.LOG.vkey}", "quorum a"]),
    ("a key id of another key", [LINES[0].replace(made.LOG.key_id.hex(), "00000000"), "quorum none"]),
    ("an unknown word", [*LINES, "monitor a", "quorum a"]),
    ("a control character", [*LINES, "# \x01", "quorum a"]),
    ("another space", [*LINES, "quorum\u00a0a"]),
])  # fmt: skip
def test_policies_that_mean_nothing(name: str, lines: list[str]) -> None:
    """Refused with the line, given or in an export."""
    for strict in (False, True):
        with pytest.raises(verifier.Invalid):
            parsed("\n".join(lines) + "\n", strict=strict)


@pytest.mark.parametrize("change", [
    lambda text: text[:-1],
    lambda text: "# comment\n" + text,
    lambda text: text.replace("log ", "log  ", 1),
    lambda text: text + "\n",
    lambda text: text.replace("\n", " \n", 1),
    lambda text: text.replace("\n", " https://x\n", 1),
    lambda text: "".join(reversed(text.splitlines(keepends=True))),
    lambda text: text.replace("\n", "\r\n"),
])  # fmt: skip
def test_an_exports_policy_has_one_spelling(change: object) -> None:
    """What a given policy may have, that of an export may not."""
    parsed(made.policy_text(), strict=True)
    with pytest.raises(verifier.Invalid):
        parsed(change(made.policy_text()), strict=True)  # type: ignore[operator]


def test_quorums() -> None:
    """k of n, any, all, nested, none."""
    keys = "".join(f"witness {name} {signer.vkey}\n" for name, signer in zip("abc", made.WITNESSES, strict=True))
    head = f"log {made.LOG.vkey}\n{keys}"
    for rule, enough, short in (
        ("group g 2 a b c\nquorum g\n", ["ab", "bc", "abc"], ["", "a", "c"]),
        ("group g all a b\nquorum g\n", ["ab", "abc"], ["a", "bc"]),
        ("group g any a b\nquorum g\n", ["a", "b"], ["c", ""]),
        ("group g any a b\ngroup h all g c\nquorum h\n", ["ac", "bc"], ["ab", "c"]),
        ("quorum b\n", ["b", "abc"], ["ac", ""]),
        ("quorum none\n", ["", "abc"], []),
    ):
        policy = parsed(head + rule)
        assert [names for names in enough if not policy.satisfied(list(names))] == []
        assert [names for names in short if policy.satisfied(list(names))] == []


def test_the_quorum_is_that_of_the_given_policy(tmp_path: Path) -> None:
    """An auditor who asks for more than signed refuses; who asks for less, or knows fewer witnesses, does not."""
    two = made.Log(ENTRIES, witnesses=(A, B))
    assert judged(tmp_path, two) == []
    assert judged(tmp_path, two, made.policy_text(k=2)) == []
    assert "quorum" in judged(tmp_path, two, made.policy_text(k=3))[0]
    assert "quorum" in judged(tmp_path, two, made.policy_text(witnesses=(C,), k=1))[0]
    assert judged(tmp_path, two, made.policy_text(witnesses=(B,), k=1)) == []
    assert judged(tmp_path, two, made.policy_text(witnesses=())) == []
    assert "quorum" in judged(tmp_path, made.Log(ENTRIES, witnesses=(A,)))[0]


def test_witnesses_that_only_the_export_names_count_for_nothing(tmp_path: Path) -> None:
    """Their lines are checked and shown, marked as not of the policy."""
    given = made.policy_text(witnesses=(A,), k=1)
    report = verifier.verify(made.write(tmp_path / "out", made.Log(ENTRIES).files()), given)
    assert [witness["of_policy"] for witness in report.witnesses] == [True, False, False]
    assert any("counts for nothing" in line for line in verifier.lines_of(report))


def test_an_unknown_witness_fails_it(tmp_path: Path) -> None:
    """A line by a key that neither policy names could be changed unseen."""
    log = made.Log(ENTRIES, witnesses=(*made.WITNESSES, STRANGER))
    assert "no key of the policy" in judged(tmp_path, log)[0]
    assert "no key of the policy" in judged(tmp_path, log, made.policy_text())[0]


def test_an_unknown_witness_in_a_policy_that_the_log_does_not_name(tmp_path: Path) -> None:
    """Adding the stranger to the export's policy.txt does not help: the log's trust entry binds that file."""
    witnesses = (*made.WITNESSES, STRANGER)
    log = made.Log(ENTRIES, made.policy_text(witnesses=witnesses), witnesses=witnesses)
    assert "not the one that the log's last trust entry names" in judged(tmp_path, log)[0]


@pytest.mark.parametrize("time", [0, 2**63, 2**64 - 1])
def test_times_that_are_none(tmp_path: Path, time: int) -> None:
    """A properly signed time outside what the format allows is refused."""
    assert "out of range" in judged(tmp_path, made.Log(ENTRIES, time=time))[0]


@pytest.mark.parametrize(("time", "shown"), [
    (1, "1970-01-01T00:00:01Z"),
    (1_790_000_000, "2026-09-21T14:13:20Z"),
    (253402300799, "9999-12-31T23:59:59Z"),
    (2**63 - 1, "9223372036854775807 s after 1970"),
])  # fmt: skip
def test_times_are_shown_in_utc(tmp_path: Path, time: int, shown: str) -> None:
    """Any time that a witness may sign is shown."""
    report = verifier.verify(made.write(tmp_path / "out", made.Log(ENTRIES, time=time).files()))
    assert (report.problems, report.witnesses[0]["utc"]) == ([], shown)


def checkpoint(lines: list[str], size: str = "1", origin: str = made.ORIGIN) -> bytes:
    return f"{origin}\n{size}\n{made.b64(bytes(32))}\n\n{''.join(lines)}".encode()


BODY = f"{made.ORIGIN}\n1\n{made.b64(bytes(32))}\n".encode()


def blob(signer: made.Signer, data: bytes) -> str:
    return f"\u2014 {signer.name} {made.b64(signer.key_id + data)}\n"


STAMP = made.TIME.to_bytes(8, "big")
COSIGNED = b"cosignature/v1\ntime %d\n" % made.TIME + BODY


@pytest.mark.parametrize(("name", "lines"), [
    ("a time of four bytes", [blob(A, STAMP[4:] + A.key.sign(COSIGNED))]),
    ("a time little-endian", [blob(A, STAMP[::-1] + A.key.sign(COSIGNED))]),
    ("a time behind the signature", [blob(A, A.key.sign(COSIGNED) + STAMP)]),
    ("a time with a leading zero", [blob(A, STAMP + A.key.sign(COSIGNED.replace(b"time ", b"time 0")))]),
    ("no time", [blob(A, A.key.sign(BODY))]),
    ("signed as the log does", [blob(A, STAMP + A.key.sign(BODY))]),
    ("a byte too many", [blob(A, STAMP + A.key.sign(COSIGNED) + b"\0")]),
    ("twice", [A.line(BODY), A.line(BODY, made.TIME + 1)]),
    ("the log's line twice", [made.LOG.line(BODY)]),
    ("another's name", [A.line(BODY).replace(A.name, B.name)]),
    ("an empty signature", [f"\u2014 {A.name} \n"]),
    ("two spaces", [A.line(BODY).replace(" ", "  ", 1)]),
    ("no newline", [A.line(BODY)[:-1]]),
    ("a carriage return", [A.line(BODY)[:-1] + "\r\n"]),
    ("spare bits", [A.line(BODY)[:-3] + chr(ord(A.line(BODY)[-3]) + 1) + A.line(BODY)[-2:]]),
    ("an extension line", ["\n"]),
])  # fmt: skip
def test_signature_lines_of_another_form(name: str, lines: list[str]) -> None:
    """The right line opens, each of these fails the whole checkpoint, whatever else signed it."""
    policy = parsed(made.policy_text(k=1))
    verifier.open_checkpoint(checkpoint([made.LOG.line(BODY), B.line(BODY), A.line(BODY)]), policy)
    with pytest.raises(verifier.Invalid):
        verifier.open_checkpoint(checkpoint([made.LOG.line(BODY), B.line(BODY), *lines]), policy)


def test_a_checkpoint_that_only_witnesses_signed() -> None:
    """Or that another log signed, or the log under another origin, is refused."""
    policy = parsed(made.policy_text(k=1))
    other = made.Signer("ratchet.test/other")
    both = parsed(made.policy_text(logs=(made.LOG, other), k=1))
    with pytest.raises(verifier.Invalid, match="not signed by a log key"):
        verifier.open_checkpoint(checkpoint([A.line(BODY)]), policy)
    with pytest.raises(verifier.Invalid, match="no key of the policy for"):
        verifier.open_checkpoint(checkpoint([other.line(BODY), A.line(BODY)]), both)


def test_a_foreign_log_key_is_refused(tmp_path: Path) -> None:
    """Under a policy with another key of the same name the export is not valid, though it agrees with itself."""
    other = made.Signer(made.ORIGIN, seed=bytes([1] * 32))
    assert "not signed by a log key of the policy" in judged(
        tmp_path, made.Log(ENTRIES), made.policy_text(logs=(other,))
    )[0]  # fmt: skip


LOW = (
    bytes(32),
    (1).to_bytes(32, "little"),
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    b"\xff" * 32,
)


@pytest.mark.parametrize("point", LOW)
@pytest.mark.parametrize("kind", [1, 4])
def test_low_order_keys_are_refused(point: bytes, kind: int) -> None:
    """A log's or witness's key of low order is refused before any signature is looked at."""
    name = "x.test"
    key_id = bytes.fromhex(made.sha256(f"{name}\n".encode() + bytes([kind]) + point))[:4]
    vkey = f"{name}+{key_id.hex()}+{made.b64(bytes([kind]) + point)}"
    with pytest.raises(verifier.Invalid, match=r"order|canonical|curve"):
        parsed(f"log {vkey}\nquorum none\n" if kind == 1 else f"{LINES[0]}\nwitness x {vkey}\nquorum x\n")


def test_rotation_of_the_logs_key(tmp_path: Path) -> None:
    """Two keys of the log that both sign; an auditor who knows only one of them is content; the last trust entry counts."""
    new = made.Signer(made.ORIGIN, seed=bytes([1] * 32))
    both = made.policy_text(logs=(made.LOG, new))
    entries = [*ENTRIES, made.trust(both, (made.LOG, new))]
    log = made.Log(entries, both, logs=(made.LOG, new))
    for given in (None, made.policy_text(), made.policy_text(logs=(new,)), both):
        assert judged(tmp_path, log, given) == []
    assert judged(tmp_path, made.Log(entries, both, logs=(new,)), made.policy_text()) != []
    assert "last trust entry" in judged(tmp_path, made.Log(entries, made.policy_text()))[0]


@pytest.mark.parametrize(("name", "change"), [
    ("another digest", {"policy": "0" * 64}),
    ("other logs", {"logs": []}),
    ("other witnesses", {"witnesses": [A.vkey]}),
    ("a key id of another key", {"attester": {"keyid": "0" * 16, "key": made.b64(made.ATTESTER.public)}}),
    ("a key of another length", {"attester": {"keyid": made.sha256(b"k")[:16], "key": made.b64(b"k")}}),
    ("an unknown member", {"more": 1}),
    ("another type", {"type": "belief"}),
])  # fmt: skip
def test_trust_entries_that_do_not_hold(tmp_path: Path, name: str, change: dict[str, object]) -> None:
    """The log begins with an entry that names its policy file, keys and attester, exactly."""
    first = made.jcs(json.loads(ENTRIES[0]) | change)
    assert judged(tmp_path, made.Log([first, *ENTRIES[1:]])) != [], name


def test_trust_comes_first(tmp_path: Path) -> None:
    """A log without a trust entry, or with one only later, is refused."""
    assert judged(tmp_path, made.Log(ENTRIES[1:])) != []
    assert "entry 0" in judged(tmp_path, made.Log([*ENTRIES[1:], ENTRIES[0]]))[0]
