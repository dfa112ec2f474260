"""Policies as people and as we write them, and checkpoints opened under them: nothing changes unseen."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from witnessed import LOG, ORIGIN, TIME, WITNESSES, Signer, Tree, policy

from infra.notary import verify
from schemas.tlog import note
from schemas.tlog.note import COSIGNER, ED25519, Untrusted
from schemas.tlog.policy import Group, Policy, Witness, open_checkpoint, parse_policy
from schemas.tlog.strict import Malformed

DATA = Path(__file__).parents[2] / "data/tlog"
TREE = Tree.of(9)
ONE, TWO = WITNESSES.values()
PUBLISHED = "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2"
KEYS = [Signer(f"dev.witness/{number}", 100 + number, COSIGNER).key for number in range(6)]
names = st.text(st.characters(min_codepoint=33, exclude_categories=["Cs"], exclude_characters=" \t\n\x7f"), min_size=1)


def test_a_witness_key_prints_as_it_was_read() -> None:
    """A published witness's key: its id covers its kind."""
    key = note.parse_vkey(PUBLISHED)
    assert (key.kind, key.name, str(key)) == (COSIGNER, "remora.n621.de", PUBLISHED)
    with pytest.raises(Malformed, match="key id"):
        note.parse_vkey(str(note.VerifierKey(key.name, key.public_key)).replace("+AevN", "+BOvN"))


def test_the_specifications_cosigned_example() -> None:
    """Its lines are a log's signature and a witness's at a time, which is what the same line is written from."""
    text, (log, witness) = note.parse_note((DATA / "c2sp_cosigned_example.txt").read_bytes())
    assert note.parse_checkpoint(text).size == 20852163
    assert (len(log.signature), int.from_bytes(witness.signature[:8], "big")) == (64, 1679315147)
    assert note.cosigned(1679315147, text.encode()) == f"cosignature/v1\ntime 1679315147\n{text}".encode()


def test_a_cosigned_checkpoint_opens() -> None:
    """Who signed, and when each witness says that it did."""
    opened = open_checkpoint(TREE.signed(9, LOG, ONE, TWO), policy(2), verify)
    assert (opened.checkpoint, opened.log_keys) == (TREE.checkpoint(9), (LOG.key,))
    assert opened.witnessed == {"w1": TIME, "w2": TIME}


@pytest.mark.parametrize("quorum", [1, 2])
def test_every_flipped_bit_of_a_cosigned_checkpoint_is_found(quorum: int) -> None:
    """No single bit can change unseen, also where the quorum could spare the witness whose line it is in."""
    golden = TREE.signed(9, LOG, ONE, TWO)
    for bit in range(len(golden) * 8):
        data = bytearray(golden)
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises((Malformed, Untrusted)):
            open_checkpoint(bytes(data), policy(quorum), verify)


def test_the_quorum_decides() -> None:
    """Too few witnesses, or witnesses without the log, are not trusted; `none` asks for no witness."""
    with pytest.raises(Untrusted, match="quorum"):
        open_checkpoint(TREE.signed(9, LOG, ONE), policy(2), verify)
    with pytest.raises(Untrusted, match="no log key"):
        open_checkpoint(TREE.signed(9, ONE, TWO), policy(2), verify)
    assert open_checkpoint(TREE.signed(9), Policy((LOG.key,), {}, {}, "none"), verify).witnessed == {}


def test_lines_that_are_refused() -> None:
    """A stranger's line, a key's second line, a time of zero, a witness's key on the text alone: each fails the whole."""
    text = TREE.checkpoint(9).text
    stranger = Signer("dev.witness/9", 9, COSIGNER)
    with pytest.raises(Untrusted, match=r"dev\.witness/9"):
        open_checkpoint(TREE.signed(9, LOG, ONE, stranger), policy(), verify)
    with pytest.raises(Untrusted, match="does not verify"):
        open_checkpoint(TREE.signed(9, LOG, ONE) + ONE.line(text, TIME + 1).encode(), policy(), verify)
    timeless = note.sign_line(ONE.key, bytes(8) + ONE._private.sign(note.cosigned(0, text.encode())))
    plain = note.sign_line(ONE.key, ONE._private.sign(text.encode()))
    for line in (timeless, plain):
        with pytest.raises(Untrusted, match="does not verify"):
            open_checkpoint(TREE.signed(9) + line.encode(), policy(), verify)


def test_a_log_signs_under_its_own_origin_only() -> None:
    """A log of the policy cannot sign for another log of it."""
    other = Signer("dev.ratchet/other", 2)
    with pytest.raises(Untrusted):
        open_checkpoint(TREE.signed(9, other, ONE), policy(1, other), verify)
    opened = open_checkpoint(TREE.signed(9, other, ONE, origin="dev.ratchet/other"), policy(1, other), verify)
    assert opened.log_keys == (other.key,)


def test_both_keys_of_a_rotation_sign() -> None:
    """Two keys of one origin in the policy: either is enough, both are named."""
    new = Signer(ORIGIN, 3)
    assert open_checkpoint(TREE.signed(9, LOG, new, ONE), policy(1, new), verify).log_keys == (LOG.key, new.key)
    assert open_checkpoint(TREE.signed(9, new, ONE), policy(1, new), verify).log_keys == (new.key,)


def test_a_policy_as_people_write_it() -> None:
    """Comments, blank lines, spaces and tabs, URLs, `all` and `any`, nested groups."""
    text = "".join([
        "# who we trust\n\n \t\n",
        f"log {LOG.key} https://log.example/\n",
        *(f" witness\tX{number}  {KEYS[number]} https://w{number}.example/ \n" for number in range(3)),
        *(f"witness Y{number} {KEYS[number]}\n" for number in range(3, 6)),
        "  # two organisations\ngroup X 2 X0 X1 X2\ngroup Y any Y3 Y4 Y5\ngroup both all X Y\nquorum both\n",
    ])  # fmt: skip
    read = parse_policy(text)
    assert read.logs == (LOG.key,)
    assert list(read.witnesses) == ["X0", "X1", "X2", "Y3", "Y4", "Y5"]
    assert (read.witnesses["X1"].url, read.witnesses["Y3"].url) == ("https://w1.example/", None)
    assert read.groups == {
        "X": Group(2, ("X0", "X1", "X2")),
        "Y": Group(1, ("Y3", "Y4", "Y5")),
        "both": Group(2, ("X", "Y")),
    }
    assert read.satisfied(["X0", "X2", "Y4"])
    assert not read.satisfied(["X0", "X1", "X2"])
    assert not read.satisfied(["X0", "Y3", "Y4", "Y5"])
    assert not read.satisfied(["X", "Y", "both"])  # groups do not sign


def test_the_smallest_policies() -> None:
    """Only the quorum is mandatory, and it may be one witness."""
    assert parse_policy("quorum none\n").satisfied([])
    alone = parse_policy(f"witness w {KEYS[0]}\nquorum w\n")
    assert (alone.satisfied(["w"]), alone.satisfied([])) == (True, False)


@pytest.mark.parametrize(("text", "said"), [
    ("", "no quorum"),
    ("quorum none", "line 1 has no newline"),
    ("quorum none\nquorum none\n", "line 2: a second quorum"),
    ("quorum nobody\n", "line 1: 'nobody' is no witness"),
    ("group g all w\nquorum g\n", "line 1: 'w' is no witness"),
    ("\nlogs x\nquorum none\n", "line 2: 'logs'"),
    ("log\nquorum none\n", "line 1: 'log' with 0 items"),
    ("log WITNESS\nquorum none\n", "type 0x04; accepted here: 0x01"),
    ("log LOG\nlog LOG\nquorum none\n", "line 2: .* stands there already"),
    ("log LOG\nlog OTHERNAME\nquorum none\n", "line 2: .* stands there already"),
    ("witness w LOG\nquorum w\n", "type 0x01; accepted here: 0x04"),
    ("witness w WITNESS\nwitness v WITNESS\nquorum w\n", "line 2: .* stands there already"),
    ("witness w WITNESS\nwitness w SECOND\nquorum w\n", "line 2: the name 'w' is taken"),
    ("witness none WITNESS\nquorum none\n", "the name 'none' is taken"),
    ("witness w WITNESS\ngroup w all w\nquorum w\n", "line 2: the name 'w' is taken"),
    ("witness w WITNESS\ngroup g all none\nquorum g\n", "line 2: 'none' is no witness"),
    ("witness w WITNESS\ngroup g all w w\nquorum g\n", "line 2: 'w' is listed a second time"),
    ("witness w WITNESS\ngroup g all w\ngroup h all w\nquorum h\n", "line 3: 'w' is listed a second time"),
    ("witness w WITNESS\ngroup g all\nquorum g\n", "line 2: 'group' with 2 items"),
    ("witness w WITNESS\ngroup g 0 w\nquorum g\n", "line 2: 0 of 1"),
    ("witness w WITNESS\ngroup g 2 w\nquorum g\n", "line 2: 2 of 1"),
    ("witness w WITNESS\ngroup g 01 w\nquorum g\n", "line 2: the group's count"),
    ("quorum none\r\n", "line 1 holds a control character"),
    ("quorum\x0bnone\n", "line 1 holds a control character"),
    ("quorum\u00a0none\n", "line 1: 'quorum\\\\xa0none' with 0 items"),
    ("log bad\nquorum none\n", "line 1: not a verifier key"),
])  # fmt: skip
def test_bad_policies_are_refused_by_line(text: str, said: str) -> None:
    """Whatever a policy file does wrong is refused with its line."""
    other = note.VerifierKey("dev.other", LOG.key.public_key)
    for word, key in (("LOG", LOG.key), ("WITNESS", KEYS[0]), ("SECOND", KEYS[1]), ("OTHERNAME", other)):
        text = text.replace(word, str(key))
    with pytest.raises(Malformed, match=said):
        parse_policy(text)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Any policy: each name in one group at most."""
    petnames = draw(st.lists(names.filter(lambda name: name != "none"), unique=True, max_size=9))
    count = min(len(petnames), draw(st.integers(0, len(KEYS))))
    url = st.none() | names
    witnesses = {name: Witness(KEYS[at], draw(url)) for at, name in enumerate(petnames[:count])}
    free, groups = list(witnesses), {}
    for name in petnames[count:]:
        if free:
            members = draw(st.lists(st.sampled_from(free), unique=True, min_size=1))
            groups[name] = Group(draw(st.integers(1, len(members))), tuple(members))
            free = [item for item in free if item not in members] + [name]
    logs = draw(st.lists(st.sampled_from([Signer(ORIGIN, seed).key for seed in (1, 2, 3)]), unique=True))
    return Policy(tuple(logs), witnesses, groups, draw(st.sampled_from([*witnesses, *groups, "none"])))


@given(policies())
def test_what_we_write_reads_back(made: Policy) -> None:
    """The canonical text is the policy, with or without its URLs, and there is only one such text."""
    assert parse_policy(made.text(urls=True)) == made
    bare = parse_policy(made.text())
    assert bare.text() == made.text()
    assert [witness.key for witness in bare.witnesses.values()] == [w.key for w in made.witnesses.values()]


@given(policies(), st.data())
def test_more_witnesses_never_satisfy_less(made: Policy, data: st.DataObject) -> None:
    """A policy that some satisfy is satisfied by them and any others; by all it is satisfied always."""
    some = data.draw(st.lists(st.sampled_from(list(made.witnesses)))) if made.witnesses else []
    more = data.draw(st.lists(st.sampled_from(list(made.witnesses)))) if made.witnesses else []
    assert made.satisfied([*some, *more]) >= made.satisfied(some)
    assert made.satisfied(list(made.witnesses))


def test_other_logs_under_the_same_witnesses() -> None:
    """The logs are replaced, in their order; a witness's key is no log's."""
    new = Signer(ORIGIN, 3)
    made = policy().with_logs([str(LOG.key), str(new.key)])
    assert (made.logs, made.witnesses) == ((LOG.key, new.key), policy().witnesses)
    for bad in ([str(ONE.key)], [str(LOG.key)] * 2):
        with pytest.raises(Malformed):
            made.with_logs(bad)
    assert new.key.kind == ED25519
