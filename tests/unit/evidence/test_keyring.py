"""Subjects' keys: who has one, who never again, over a broker in memory."""

import base64
import itertools
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.evidence.keyring import TOPIC, Keyring, open_rows_key
from agents.evidence.keytable import Erased, KeyTable, Live, Missing, SubjectKey, Wanted
from infra.clock import ManualClock
from infra.kek import LocalKek, key_name
from schemas.compliance import Cut, KeyErased, KeyRemoved, KeyWrapped
from schemas.errors import Refused, SubjectErased, Unavailable
from schemas.payload import Payload
from streams.fence import Publisher
from streams.memory import MemoryBroker
from streams.port import Fenced

ANNA, BERT = "a" * 32, "b" * 32
MASTER = bytes(range(32))
CUT = (Cut(partition=1, offset=10),)


def wrapped(epoch: int, text: str = "w", subject: str = ANNA) -> KeyWrapped:
    return KeyWrapped(tenant="acme", at_ms=1, subject=subject, epoch=epoch, wrapped=f"{text}{epoch}")


def removed(epoch: int, subject: str = ANNA) -> KeyRemoved:
    return KeyRemoved(tenant="acme", at_ms=1, subject=subject, epoch=epoch)


def marker(epoch: int, subject: str = ANNA, cut: tuple[Cut, ...] = CUT) -> KeyErased:
    return KeyErased(tenant="acme", at_ms=1, subject=subject, epoch=epoch, cut=cut, erasure=f"e-{epoch}")


def table(*events: Payload) -> KeyTable:
    found = KeyTable()
    for event in events:
        found.apply(event)
    return found


def at(offset: int | None, partition: int = 1, subject: str = ANNA) -> Wanted:
    return Wanted("acme", subject, None if offset is None else (partition, offset))


def test_a_key_is_for_a_subject_of_a_tenant() -> None:
    """Nobody has one at first; whoever has one has it for every request."""
    known = table(wrapped(1))
    assert [known.state(at(offset)) for offset in (0, 99, None)] == [Live(1, "w1")] * 3
    assert known.state(at(0, subject=BERT)) == Missing(1)
    assert known.state(Wanted("globex", ANNA, (1, 0))) == Missing(1)


def test_after_an_erasure() -> None:
    """Below the cut nothing opens for ever; from it on there is a key of the next epoch, once it is made."""
    known = table(wrapped(1), removed(1), marker(1))
    gone = Erased(1, CUT, "e-1")
    assert [known.state(at(9)), known.state(at(10)), known.state(at(0, partition=0))] == [gone, Missing(2), Missing(2)]
    known.apply(wrapped(2))
    assert [known.state(at(9)), known.state(at(10))] == [gone, Live(2, "w2")]
    assert known.state(at(None)) == gone


def test_a_request_that_cannot_be_placed_is_erased() -> None:
    """Whose request nobody can place is erased with the subject: nobody can say that it came later."""
    assert table(wrapped(1), removed(1), marker(1), wrapped(2)).state(at(None)) == Erased(1, CUT, "e-1")


def test_a_key_that_is_taken_away_before_its_marker_is_read() -> None:
    """Between two partitions of one transaction everything of the subject is erased."""
    assert table(wrapped(1), removed(1)).state(at(99)) == Erased(1, (), "")


@given(st.permutations([wrapped(1), removed(1), marker(1), wrapped(2)]), st.integers(0, 4))
def test_the_order_of_partitions_does_not_count(events: list[Payload], repeated: int) -> None:
    """Whatever is read first, and read again: the same table."""
    known = table(*events, *events[:repeated])
    assert [known.state(at(9)), known.state(at(10))] == [Erased(1, CUT, "e-1"), Live(2, "w2")]


@pytest.mark.parametrize("replay", list(itertools.permutations([removed(1), marker(1)])))
def test_a_late_key_of_an_erased_epoch_does_not_count(replay: tuple[Payload, ...]) -> None:
    """A process that was fenced out publishes an old key after the erasure: nothing opens."""
    known = table(*replay, wrapped(1, "late"))
    assert (known.state(at(9)), known.state(at(10)), known.live("acme", ANNA)) == (
        Erased(1, CUT, "e-1"),
        Missing(2),
        None,
    )


def test_a_second_erasure() -> None:
    """The newest marker speaks for all before it, as it alone is left after compaction."""
    later = (Cut(partition=1, offset=20),)
    known = table(wrapped(1), removed(1), marker(1), wrapped(2), removed(2), marker(2, cut=later))
    alone = table(removed(2), marker(2, cut=later))
    for offset in (9, 10, 19):
        assert known.state(at(offset)) == alone.state(at(offset)) == Erased(2, later, "e-2")
    assert known.state(at(20)) == alone.state(at(20)) == Missing(3)


def test_derived_keys_are_those_of_rfc_5869() -> None:
    """HKDF-SHA-256 as another implementation has it; every purpose another key; no repr holds one."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    dek = bytes(range(32))
    key = SubjectKey(1, dek)
    for purpose, found in (("commit/1", key.commit), ("payload/1", key.payload), ("rows/1", key.rows)):
        assert found == HKDF(hashes.SHA256(), 32, None, purpose.encode()).derive(dek)
    assert len({key.commit, key.payload, key.rows, dek}) == 4
    assert repr(key) == "SubjectKey(epoch=1)"


# the keyring over its topic


class Ring:
    """Keyrings over one topic, each with nothing in memory."""

    def __init__(self) -> None:
        self.broker = MemoryBroker()
        self.clock = ManualClock()
        self.kek = LocalKek(MASTER)

    def open(self, *, makes: bool = True) -> Keyring:
        publisher = Publisher(self.broker, self.broker.count, owner="keys") if makes else None
        return Keyring(self.broker, self.kek, self.clock, publisher)

    def erase(self, epoch: int, offset: int, subject: str = ANNA) -> None:
        """As the shredder does."""
        self.broker.publish(removed(epoch, subject))
        self.broker.publish(marker(epoch, subject, (Cut(partition=1, offset=offset),)))


@pytest.fixture
def ring() -> Ring:
    return Ring()


async def made(keyring: Keyring, wanted: Wanted) -> SubjectKey:
    found = (await keyring.make([wanted]))[wanted]
    assert isinstance(found, SubjectKey)
    return found


async def test_a_key_is_made_once(ring: Ring) -> None:
    """The same key for every request, after a restart, and for whoever only reads; one event on the topic."""
    key = await made(ring.open(), at(1))
    keyring = ring.open()
    assert (await made(keyring, at(7))).commit == key.commit
    assert (await ring.open(makes=False).key(at(None))).commit == key.commit
    assert [event.data.TYPE for event in ring.broker.events("keyring")] == ["key.wrapped"]


async def test_many_keys_at_once(ring: Ring) -> None:
    """Subjects of several tenants: each a key of its own, all in one transaction; what there is already stays."""
    first = await made(ring.open(), at(0))
    wanted = [Wanted(tenant, f"{n:032x}", (0, n)) for n in range(300) for tenant in ("acme", "globex")] + [at(1)]
    found = await ring.open().make(wanted)
    keys = [key.commit for key in found.values() if isinstance(key, SubjectKey)]
    assert len(set(keys)) == len(wanted) == 601
    assert found[at(1)].commit == first.commit  # type: ignore[union-attr]


async def test_erased_for_a_running_keyring_and_after_every_restart(ring: Ring) -> None:
    """What was open in memory opens no more once the marker is on the topic, nor after a replay, nor after compaction."""
    running = ring.open()
    key = await made(running, at(1))
    ring.erase(1, 10)
    for step in range(3):
        for keyring in (running, ring.open(), ring.open(makes=False)):
            with pytest.raises(SubjectErased) as caught:
                await keyring.key(at(9))
            assert (caught.value.kind, caught.value.field) == ("erased", "e-1"), step
            with pytest.raises(SubjectErased):
                await open_rows_key(keyring, "acme", ANNA, (1, 9))
        ring.broker.compact(TOPIC)
    assert key.commit not in [row[1].commit for row in running._open.values()]


async def test_a_later_request_opens_the_next_epoch(ring: Ring) -> None:
    """From the cut on the same person has another key, readable, and what was erased stays erased beside it."""
    first = await made(ring.open(), at(1))
    ring.erase(1, 10)
    second = await made(ring.open(), at(10))
    assert (second.epoch, second.commit == first.commit) == (2, False)
    ring.broker.compact(TOPIC)
    keyring = ring.open()
    found = await keyring.make([at(10), at(9)])
    assert isinstance(found[at(9)], Erased)
    assert (await keyring.key(at(11))).commit == second.commit
    assert await open_rows_key(keyring, "acme", ANNA, (1, 10)) == second.rows


class ErasedMeanwhile(LocalKek):
    """While it wraps, the subject is erased."""

    def __init__(self, ring: Ring) -> None:
        super().__init__(MASTER)
        self._ring = ring

    async def wrap(self, tenant: str, keys: Any) -> list[str]:
        self._ring.erase(1, 10)
        return await super().wrap(tenant, keys)


async def test_an_erasure_while_a_key_is_being_made(ring: Ring) -> None:
    """A marker that comes between reading and publishing is seen before the key is used: the request is erased."""
    keyring = ring.open()
    await keyring.make([])

    keyring._kek = ErasedMeanwhile(ring)
    found = await keyring.make([at(9), at(12)])
    assert isinstance(found[at(9)], Erased)
    second = found[at(12)]
    assert isinstance(second, SubjectKey)
    assert second.epoch == 2


async def test_a_key_behind_its_own_removal_is_taken_away(ring: Ring) -> None:
    """An erasure that is committed while the key is wrapped stands before it: compaction would keep the key, so it is removed again."""
    keyring = ring.open()
    await keyring.make([])

    keyring._kek = ErasedMeanwhile(ring)
    assert isinstance((await keyring.make([at(9)]))[at(9)], Erased)
    own = [event.data for event in ring.broker.events("keyring") if event.key == f"acme/{ANNA}"]
    assert [type(data) for data in own] == [KeyRemoved, KeyWrapped, KeyRemoved]
    assert isinstance(own[-1], KeyRemoved)
    assert own[-1].epoch == 1


async def test_who_publishes_is_fenced(ring: Ring) -> None:
    """The older of two processes that make keys makes none any more."""
    older, newer = ring.open(), ring.open()
    await made(older, at(0))
    await made(newer, at(0, subject=BERT))
    with pytest.raises(Fenced):
        await older.make([at(0, subject="c" * 32)])
    assert len(ring.broker.events("keyring")) == 2


async def test_the_broker_is_away(ring: Ring) -> None:
    """Unavailable, and nothing is lost: the next call gives the key."""
    keyring = ring.open()
    ring.broker.away = True
    with pytest.raises(Unavailable):
        await keyring.make([at(0)])
    ring.broker.away = False
    await made(keyring, at(0))


async def test_an_unknown_outcome_leaves_one_key_that_counts(ring: Ring) -> None:
    """Published, and the answer is lost: the next call uses what is on the topic, and so does everybody after it."""
    keyring = ring.open()
    real = keyring._publisher
    assert real is not None

    class Lost:
        start = real.start

        async def publish(self, payloads: Any, cursor: int) -> None:
            await real.publish(payloads, cursor)
            raise Unavailable("the answer is lost")

    keyring._publisher = Lost()
    with pytest.raises(Unavailable):
        await keyring.make([at(0)])
    keyring._publisher = real
    key = await made(keyring, at(0))
    assert key.commit == (await ring.open(makes=False).key(at(0))).commit
    assert len(ring.broker.events("keyring")) == 1


async def test_no_key_yet(ring: Ring) -> None:
    """Who only reads is told that there is none, and makes none."""
    with pytest.raises(Refused) as caught:
        await ring.open(makes=False).key(at(0))
    assert caught.value.kind == "no-key"
    assert ring.broker.records("keyring") == []


async def test_a_topic_that_ends_before_what_was_read(ring: Ring) -> None:
    """A keyring made anew, without its markers, is not gone on with."""
    keyring = ring.open()
    await made(keyring, at(0))
    ring.broker.delete(TOPIC)
    ring.broker.counts[TOPIC] = ring.broker.count
    with pytest.raises(Unavailable, match="does not hold what was read"):
        await keyring.make([at(0)])


async def test_keys_are_in_no_text(ring: Ring, caplog: pytest.LogCaptureFixture) -> None:
    """Not in reprs, errors, logs, nor on the topic in the clear."""
    caplog.set_level(logging.DEBUG)
    keyring = ring.open()
    key = await made(keyring, at(0))
    ring.erase(1, 10)
    with pytest.raises(SubjectErased) as caught:
        await keyring.key(at(0))
    said = " ".join(
        [repr(key), repr(keyring), repr(ring.kek), repr(caught.value), str(caught.value.args), caplog.text]
        + [str(record) for record in ring.broker.records("keyring")]
    )
    dek = key._dek
    for secret in (dek, key.commit, key.payload, key.rows, MASTER):
        for text in (secret.hex(), base64.b64encode(secret).decode(), repr(secret)):
            assert text not in said


# the local wrapping key; Vault's has the same tests in tests/integration


async def test_a_wrapped_key_belongs_to_its_tenant_subject_and_epoch() -> None:
    """With any other of these it does not open, and the error repeats nothing of it."""
    kek = LocalKek(MASTER)
    (text,) = await kek.wrap("acme", [(ANNA, 1, bytes(32))])
    assert await kek.unwrap("acme", [(ANNA, 1, text)]) == [bytes(32)]
    for tenant, subject, epoch, told in (
        ("globex", ANNA, 1, text),
        ("acme", BERT, 1, text),
        ("acme", ANNA, 2, text),
        ("acme", ANNA, 1, text[:-4] + "AAA="),
        ("acme", ANNA, 1, "no base64"),
    ):
        with pytest.raises(Refused) as caught:
            await kek.unwrap(tenant, [(subject, epoch, told)])
        assert caught.value.kind == "kek"
        assert told not in str(caught.value)


@given(st.sets(st.from_regex(r"[A-Za-z0-9._-]{1,6}", fullmatch=True), max_size=8))
def test_every_tenant_has_a_key_name_of_its_own(tenants: set[str]) -> None:
    """Different for different tenants, and one that Vault takes: it begins and ends with a letter, digit or underscore."""
    tenants |= {"-6161", "aa", "-", "..", "-61"}
    names = {key_name(tenant) for tenant in tenants}
    assert len(names) == len(tenants)
    assert all(name.startswith("kek-") and name[-1] not in ".-" for name in names)
