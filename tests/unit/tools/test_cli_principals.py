"""`ratchet principal` and whoever speaks by it, on a local secret store: who is named, what is said, what is never shown."""

import asyncio
import getpass
import importlib.util
import json
import os
from pathlib import Path

import pytest
from commanded import Run, commanded, never_up
from spoken import Ears

from infra import keys
from infra.clock import SystemClock
from infra.secrets import LocalSecrets
from infra.settings import load
from schemas import codec
from schemas.codec import Encoded
from schemas.errors import Refused
from schemas.events import CommandPause, VerdictGiven
from schemas.principal import AT, KINDS, Credential
from streams.letters import Letter
from streams.shapes import Place, Record
from tools.cli.place import settings, voice
from tools.cli.repairs import speaking, vouching
from tools.cli.status import proof, unproven_of
from tools.demo.stage import forget_principals
from tools.voice import voices

NOW = SystemClock().now_ms
EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "upstream.py"


@pytest.fixture
def ratchet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """`ratchet principal …`. No stack was ever up here."""
    never_up(monkeypatch, tmp_path)
    return commanded(monkeypatch, capsys, "principal")


@pytest.fixture
def store(ratchet: Run, tmp_path: Path) -> LocalSecrets:
    """The store of a stack that was up once."""
    made = LocalSecrets.open(tmp_path / "secrets.json")
    asyncio.run(keys.ensure(made, keys.LOCAL, now_ms=NOW() - 1000))
    return made


async def who(row: Encoded, store: LocalSecrets, topic: str) -> str:
    """Whom an agent would hear in a record that is written now."""
    ring = await keys.load_ring(store)
    speaker = Ears(ring)(Record(topic, 0, 0, row.key, row.value, row.headers, NOW()))
    return "" if speaker is None else speaker.name


def test_without_a_store_nothing_is_added(ratchet: Run) -> None:
    """There is nobody to list, and something is away: exit 3 says what makes a store."""
    assert ratchet("list")[:2] == (0, [])
    code, _, said = ratchet("add", "shop", "--role", "upstream")
    assert (code, "`ratchet up` makes one" in said) == (3, True)


def test_a_principal_from_add_to_revoke(ratchet: Run, store: LocalSecrets, tmp_path: Path) -> None:
    """Each step says the key's id and its times; the key is in the file alone, for its owner's eyes, and once."""
    file = tmp_path / "shop.json"
    code, (added,), first = ratchet("add", "shop", "--role", "upstream", "--tenant", "acme", "--key-file", str(file))
    assert (code, added["added"], added["keys"][0]["state"]) == (0, "shop", "not yet")
    made = json.loads(file.read_text(encoding="utf-8"))
    assert (made["principal"], made["key_id"]) == ("shop", added["keys"][0]["key"])
    assert file.stat().st_mode & 0o777 == 0o600
    code, (rotated,), second = ratchet("rotate", "shop", "--overlap", "60", "--days", "30")
    new = rotated["keys"][0]
    assert new["not_after_ms"] - new["not_before_ms"] == 30 * 86_400_000
    code, rows, third = ratchet("list")
    assert code == 0
    old, also = next(row for row in rows if row["principal"] == "shop")["keys"]
    assert (old["key"], also["key"], old["not_after_ms"]) == (made["key_id"], new["key"], new["not_before_ms"] + 60_000)
    code, (revoked,), fourth = ratchet("revoke", "shop")
    assert {row["key"] for row in revoked["keys"]} == {old["key"], new["key"]}
    held = asyncio.run(store.get("principals/shop")).values()
    assert not [key for key in held for said in (first, second, third, fourth) if key in said]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("add", "shop", "--role", "king"), "role 'king': accepted: upstream, reviewer, operator"),
        (("add", "no good", "--role", "upstream"), "principal 'no good' is not accepted"),
        (("add", "demo", "--role", "upstream"), "principal 'demo' is there already"),
        (("rotate", "shop"), "principal 'shop' is not known; known: demo, grader, operator, reviewer"),
        (("revoke", "demo", "--key", "k-0"), "principal 'demo' has no key 'k-0'"),
    ],
)
def test_wrong_uses_end_with_2(ratchet: Run, store: LocalSecrets, words: tuple[str, ...], said: str) -> None:
    """What was refused and what would be accepted; nothing has changed."""
    before = asyncio.run(keys.principals(store))
    code, _, told = ratchet(*words)
    assert (code, said in told) == (2, True)
    assert asyncio.run(keys.principals(store)) == before


def test_a_key_file_is_never_overwritten(ratchet: Run, store: LocalSecrets, tmp_path: Path) -> None:
    """Refused before anything is made: another's key may be in it."""
    file = tmp_path / "shop.json"
    file.write_text("mine")
    code, _, said = ratchet("add", "shop", "--role", "upstream", "--key-file", str(file))
    assert (code, "is there already" in said) == (2, True)
    assert "shop" not in asyncio.run(keys.principals(store))
    assert file.read_text() == "mine"


@pytest.mark.parametrize("folder", ["missing", "secrets.json", "shut"])
@pytest.mark.parametrize("words", [("add", "shop", "--role", "upstream"), ("rotate", "demo")])
def test_a_key_is_not_made_for_a_file_that_cannot_be(
    ratchet: Run,
    store: LocalSecrets,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    folder: str,
) -> None:
    """A key file in a folder that is missing, is none or may not be written is refused before anything has changed."""
    (tmp_path / "shut").mkdir()
    monkeypatch.setattr(
        os, "access", lambda path, _: path != tmp_path / "shut"
    )  # root, who may run this, is shut out nowhere
    before = asyncio.run(keys.principals(store))
    code, _, said = ratchet(*words, "--key-file", str(tmp_path / folder / "shop.json"))
    assert (code, "is no folder that can be written" in said) == (2, True)
    assert asyncio.run(keys.principals(store)) == before


async def test_each_command_speaks_as_whom_the_stack_has(store: LocalSecrets) -> None:
    """Without a name the stack's own of the role; a name without the role is refused, with who could."""
    for topic, speaker in (await voices(settings())).items():
        row = speaker.prove(plain())
        assert await who(row, store, f"ratchet.{topic}") == speaker.name
    with pytest.raises(Refused, match=r"'demo' has not the role operator; accepted: operator \(--as NAME\)"):
        await voice("operator", "demo")
    with pytest.raises(Refused, match="'ann' is not known"):
        await voice("reviewer", "ann")


async def test_a_revoked_speaker_is_told_before_anything_is_sent(store: LocalSecrets) -> None:
    """No key that counts: nothing goes out, unproven or otherwise."""
    await keys.revoke(store, "demo", now_ms=NOW() - 20_000)
    with pytest.raises(Refused, match="no key of principal 'demo' counts now"):
        await voice("upstream", None)


async def test_where_no_key_was_ever_set_the_login_name_speaks_unproven(ratchet: Run) -> None:
    """As agents take it then."""
    spoken = await voice("operator", "ann")
    assert (spoken.name, spoken.credential) == ("ann", None)
    assert spoken.prove(plain()) == plain()


@pytest.fixture(params=[KeyError("uid not found"), OSError("no username")], ids=["before 3.13", "since"])
def nameless(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without a login name, as a container that was given any user id has it."""

    def nobody() -> str:
        raise request.param

    monkeypatch.setattr(getpass, "getuser", nobody)


@pytest.mark.usefixtures("nameless")
async def test_with_keys_no_login_name_is_needed(store: LocalSecrets) -> None:
    """The stack's own principal of the role speaks, whoever the user is."""
    assert (await voice("operator", None)).name == "operator"
    assert (await voice("reviewer", None)).name == "reviewer"


@pytest.mark.usefixtures("nameless")
async def test_without_keys_who_has_no_login_name_is_told_to_give_one(ratchet: Run) -> None:
    """Refused with what would be accepted; a name that is given speaks."""
    with pytest.raises(Refused, match=r"operator '': accepted: .*; give --as NAME"):
        await voice("operator", None)
    assert (await voice("operator", "ann")).name == "ann"


def dead(topic: str) -> Letter:
    """A dead letter of a topic."""
    return Letter(Place(topic + ".dlq", 0, 0), Record(topic, 0, 0, b"k", None, (), 0), "judge", "invalid", "", 1, "")


async def test_what_goes_back_is_proven_anew_by_whom_it_names(store: LocalSecrets) -> None:
    """A verdict by its judge, a command by its operator, a request by upstream or who is said; the repair by the operator."""
    verdict = VerdictGiven(at_ms=1, route="r", request_id="a", by="reviewer")
    pause = CommandPause(at_ms=1, route="r", operator="operator")
    for payload, topic, given, name in (
        (verdict, "ratchet.verdicts", None, "reviewer"),
        (verdict, "ratchet.verdicts", "demo", "demo"),
        (pause, "ratchet.commands", None, "operator"),
        (pause, "ratchet.requests", None, "demo"),
    ):
        row = codec.encode(payload, event_id="e", source="test", traceparent="")
        prove = await vouching(dead(topic), row.value, given)
        assert prove is not None
        assert await who(prove(row), store, topic) == name
    assert await vouching(dead("ratchet.results"), b"", None) is None
    with pytest.raises(Refused, match="'eve' is not known"):
        await vouching(dead("ratchet.verdicts"), b'{"by": "eve"}', None)
    with pytest.raises(Refused, match="has not the role"):
        await vouching(dead("ratchet.commands"), b"{", "demo")
    by = await speaking(None, "why")
    assert by.prove is not None
    assert await who(by.prove(plain()), store, "ratchet.commands") == by.name == "operator"


def test_status_says_whether_proof_is_asked_for(ratchet: Run, tmp_path: Path) -> None:
    """Loudly where it is not; else by whom it can be given."""
    assert proof(load().resolved())["on"] is False
    made = LocalSecrets.open(tmp_path / "secrets.json")
    asyncio.run(keys.ensure(made, {"shop": ["upstream"]}, now_ms=NOW() - 1000))
    told = proof(load().resolved())
    assert (told["on"], told["detail"]) == (
        True, "requests, verdicts and commands must be proven; 1 keys count, of shop"
    )  # fmt: skip


def test_status_counts_what_lacked_a_proof() -> None:
    """By kind, requests and dead letters together; what was refused for another reason is not among them."""
    seen = {
        "refused": [
            {"route": "r", "kind": "forged", "count": 2},
            {"route": "r", "kind": "paused", "count": 9},
            {"route": "(none)", "kind": "forged", "count": 1},
        ],
        "dead_letters": [
            {"topic": "ratchet.commands.dlq", "kind": "unproven", "count": 3},
            {"topic": "ratchet.decisions.dlq", "kind": "unproven", "count": 5},
            {"topic": "ratchet.verdicts.dlq", "kind": "wrong-tenant", "count": 7},
        ],
    }
    assert unproven_of(seen) == {"forged": 3, "unproven": 3}
    assert unproven_of(None) == {}
    assert {"wrong-tenant", "paused"}.isdisjoint(KINDS)


def test_the_example_proves_as_the_contract_says(tmp_path: Path) -> None:
    """Byte for byte as our own code; a key file as the command writes it."""
    spec = importlib.util.spec_from_file_location("upstream", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    upstream = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(upstream)
    key = bytes(range(32))
    file = tmp_path / "shop.json"
    file.write_text(json.dumps({"principal": "shop", "key_id": "k1", "key": key.hex()}))
    name, value, headers = upstream.request(upstream.read_key(file), "banking.intent", "hi", NOW())
    told = dict(headers)
    bare = Encoded(name, value, tuple(row for row in headers if row[0].startswith("ce_")))
    ours = Credential("shop", "k1", key).prove(bare, at_ms=int(told[AT]), span_ms=upstream.HOLDS_MS)
    assert dict(ours.headers) == told
    codec.decode_payload(codec.payload_class(told["ce_type"].decode()), value)
    documented = b'{"at_ms":1767225600000,"route":"banking.intent","request_id":"r-1","messages":[{"role":"user","content":"hi"}]}'
    upstream.HOLDS_MS = 600_000
    proof_of = dict(upstream.prove(("shop", "k1", key), "r-1", upstream.TYPE, b"r-1", documented, 1767225600000))
    assert proof_of["ratchet-proof"] == b"5460711b84f5adca100eec9b83183b634a4889baaf4b6296bf6678ae47b5046a"


def plain() -> Encoded:
    pause = CommandPause(at_ms=1, route="r", operator="x")
    return codec.encode(pause, event_id="e", source="test", traceparent="")


def test_a_demonstration_begins_with_keys_of_its_own(store: LocalSecrets) -> None:
    """What was revoked or added on the last one's data is gone with it; each speaks at once, and old keys no more."""
    old = asyncio.run(keys.credential(store, "demo", "upstream", NOW()))
    asyncio.run(keys.revoke(store, "demo", now_ms=NOW() - 20_000))
    forget_principals(settings())
    assert asyncio.run(keys.principals(store)) == {}
    asyncio.run(keys.ensure(store, keys.LOCAL, now_ms=NOW()))
    new = asyncio.run(keys.credential(store, "demo", "upstream", NOW()))
    assert asyncio.run(who(new.prove(plain(), at_ms=NOW()), store, "ratchet.requests")) == "demo"
    with pytest.raises(Refused, match="no such key"):
        asyncio.run(who(old.prove(plain(), at_ms=NOW()), store, "ratchet.requests"))
