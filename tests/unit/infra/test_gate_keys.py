"""The gate's keys rotate: the newest seals, the former ones open, and nothing that is under way is lost on the way."""

import asyncio
import base64
import logging
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.rules.masking import MaskMap
from infra import gate_keys
from infra.gate_keys import GateKeyring
from infra.keys import LEAD_MS
from infra.sealing import GATE_SECRET, GateKeys, map_key, open_gate_keys
from infra.secrets import LocalSecrets
from schemas.errors import Refused, Unavailable
from schemas.gate import FIRST_KEY, KEY_GONE

NOW = 1_800_000_000_000
DAY = 86_400_000
MAP = MaskMap({"[E_MAIL_1]": "anna@example.org", "[CARD_1]": "4111 1111 1111 1111"})
OF_BEFORE = (  # sealed when there was one key and no rotation
    "AQAhbu248FLm/gKbIzYOrUcbgSgGQSypFbMbFRFyVLkrvzeKZbptsrH8xtjuZYymWH/qHHgFkfPgZCvg6QNWJaXsaDAf4wS9Belw0zvM0aUviMvqpZtzqxEXi8Yk6YrP"
    "gGhaNVhoAmZ7wPVJWajOuQ=="
)
times = st.integers(NOW - 1000 * DAY, NOW + 1000 * DAY)


def master(number: int) -> bytes:
    return bytes((number + at) % 256 for at in range(32))


def keys(*ids: int, first: bool = True, retired: Collection[int] = ()) -> GateKeys:
    """A key for each id, the same in every ring."""
    return GateKeys(master(0) if first else None, {key_id: master(key_id % 251 + 1) for key_id in ids}, retired)


def sealed(ring: GateKeys, at_ms: int) -> str:
    return ring.seal_map("acme", "r-1", "e-1", MAP, at_ms)


def opened(ring: GateKeys, text: str) -> MaskMap:
    return MaskMap.decode(ring.open_map("acme", "r-1", text))


def refusal(call: Callable[[], object]) -> Refused:
    with pytest.raises(Refused) as refused:
        call()
    return refused.value


def test_a_secret_with_one_key_seals_as_before() -> None:
    """To the byte; and whatever keys come later, it opens, and a replay of that time gives it again."""
    for ring, at_ms in ((GateKeys(master(0)), NOW), (keys(NOW), NOW - 1)):
        assert sealed(ring, at_ms) == OF_BEFORE
        assert opened(ring, OF_BEFORE) == MAP
    assert map_key(OF_BEFORE) == FIRST_KEY


@given(st.sets(times, max_size=4), st.sets(times, max_size=4), times)
def test_what_was_sealed_opens_under_every_later_ring(before: set[int], more: set[int], at_ms: int) -> None:
    """By the newest key of its time, whose id it bears; the same arguments give the same text also when newer keys have come."""
    ring, later = keys(*before), keys(*before, *(one for one in more if one > at_ms))
    text = sealed(ring, at_ms)
    assert map_key(text) == max((one for one in before if one <= at_ms), default=FIRST_KEY)
    assert opened(later, text) == MAP
    assert sealed(later, at_ms) == text
    assert sealed(later, map_key(text)) == text  # as a replay does, which knows the key and not the time


@given(st.lists(times, min_size=2, max_size=4, unique=True), times)
def test_a_map_is_of_one_key_alone(ids: list[int], at_ms: int) -> None:
    """Without that key it is refused, by name; with it the others are not needed."""
    text = sealed(keys(*ids), at_ms)
    by = map_key(text)
    others = [one for one in ids if one != by]
    without = keys(*others, first=by != FIRST_KEY)
    assert refusal(lambda: opened(without, text)).kind == KEY_GONE
    assert opened(GateKeys(None, {by: master(by % 251 + 1)}) if by != FIRST_KEY else GateKeys(master(0)), text) == MAP


def test_every_tampered_key_id_is_refused() -> None:
    """No bit of it may change: to another key, to none that there is, or to the first."""
    ring = keys(NOW, NOW ^ 1, NOW ^ 256)
    raw = base64.b64decode(sealed(ring, NOW))
    for bit in range(8 * 9):
        broken = bytearray(raw)
        broken[bit // 8] ^= 1 << bit % 8
        text = base64.b64encode(bytes(broken)).decode()
        assert refusal(lambda text=text: opened(ring, text)).kind in ("sealed", KEY_GONE)
    for cut in (raw[9:], b"\x02" + bytes(8) + raw[9:], raw[:9], b"\x02"):
        assert refusal(lambda cut=cut: opened(ring, base64.b64encode(cut).decode())).kind == "sealed"


def test_a_key_that_is_gone_says_why() -> None:
    """Retired on purpose, or not there; nothing else of it."""
    text = sealed(keys(NOW), NOW)
    assert str(refusal(lambda: opened(keys(), text))) == f"The gate has no key-{NOW}."
    assert str(refusal(lambda: opened(keys(NOW + 1, retired=[NOW]), text))) == f"The gate's key-{NOW} was retired."
    assert (
        str(refusal(lambda: opened(keys(NOW, first=False, retired=[FIRST_KEY]), OF_BEFORE)))
        == "The gate's key was retired."
    )


def test_before_the_first_keys_time_it_seals_all_the_same() -> None:
    """A clock that is behind is no reason to seal nothing."""
    assert keys(NOW, NOW + 1, first=False).key_at(NOW - DAY) == NOW


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"key": "xy", f"key-{NOW}": "aa" * 32}, "no field key of 64 hex digits"),
        ({"key": "aa" * 32, f"key-{NOW}": "bb" * 31}, f"no field key-{NOW} of 64 hex digits"),
        ({"key": "aa" * 32, "key-2": "bb" * 32}, "a field 'key-2'"),
        ({"key": "aa" * 32, "key-0": "bb" * 32}, "a field 'key-0'"),
        ({"key": "aa" * 32, f"key-0{NOW}"[:17]: "bb" * 32}, "a field 'key-0"),
        ({"key": "aa" * 32, "retired-soon": "1"}, "a field 'retired-soon'"),
        ({"retired-0": "1"}, "no field key of 64 hex digits"),
    ],
)
async def test_a_secret_that_cannot_be_read_is_refused_by_its_field(
    tmp_path: Path, fields: dict[str, str], said: str
) -> None:
    """And nothing of what is in it is repeated."""
    source = LocalSecrets.open(tmp_path / "secrets.json")
    await source.put(GATE_SECRET, fields)
    with pytest.raises(Refused, match=said) as refused:
        await open_gate_keys(source)
    assert not [text for text in fields.values() if len(text) > 2 and text in str(refused.value)]


# -- a process


class Store:
    """The secret; `away`: nobody answers, and what is remembered is served on, as by Vault's adapter."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        self.fields = dict(fields)
        self.remembered = dict(fields)
        self.away = False
        self.asked = 0

    async def get(self, path: str) -> Mapping[str, str]:
        if not self.away:
            self.remembered = dict(self.fields)
        return self.remembered

    async def latest(self, path: str) -> Mapping[str, str]:
        assert path == GATE_SECRET
        self.asked += 1
        await asyncio.sleep(0)
        if self.away:
            raise Unavailable("Vault does not serve: it is sealed")
        return await self.get(path)


def fields_of(*ids: int, **more: str) -> dict[str, str]:
    return {"key": master(0).hex()} | {f"key-{one}": master(one % 251 + 1).hex() for one in ids} | more


async def test_a_key_that_is_not_known_is_asked_for_once() -> None:
    """However many answers wait for it; one that is known, or that nobody has, costs no more than that."""
    store = Store(fields_of())
    ring = await GateKeyring.open(store)
    await ring.learn(OF_BEFORE)
    assert store.asked == 0
    store.fields = fields_of(NOW)
    text = sealed(keys(NOW), NOW)
    await asyncio.gather(*(ring.learn(text) for _ in range(20)))
    assert (store.asked, ring.open_map("acme", "r-1", text)) == (1, MAP.encode())
    assert ring.open_map("acme", "r-1", OF_BEFORE) == MAP.encode()
    await ring.learn(sealed(keys(NOW + 1), NOW + 1))
    assert store.asked == 2


async def test_who_cannot_be_asked_is_away_and_the_answer_waits() -> None:
    """Neither what is remembered nor a secret that is broken says that there is no such key."""
    store = Store(fields_of())
    ring = await GateKeyring.open(store)
    text = sealed(keys(NOW), NOW)
    store.away = True
    with pytest.raises(Unavailable, match="sealed"):
        await ring.learn(text)
    store.away, store.fields = False, fields_of(NOW, key="xy")
    with pytest.raises(Unavailable, match="cannot be looked up"):
        await ring.learn(text)
    store.fields = fields_of(NOW)
    await ring.learn(text)
    assert ring.open_map("acme", "r-1", text) == MAP.encode()


async def test_a_key_is_followed_before_it_seals() -> None:
    """As it lies in the store, without a restart; until its time the former one seals."""
    store = Store(fields_of())
    ring = await GateKeyring.open(store)
    store.fields = fields_of(NOW)
    following = asyncio.create_task(ring.follow(0.001))
    async with asyncio.timeout(5):
        while NOW not in ring.keys:  # noqa: ASYNC110  watched from outside
            await asyncio.sleep(0.001)
    following.cancel()
    assert (ring.key_at(NOW - 1), ring.key_at(NOW)) == (FIRST_KEY, NOW)
    assert ring.seal_map("acme", "r-1", "e-1", MAP, NOW - 1) == OF_BEFORE


async def test_a_key_that_was_lost_or_changed_is_kept_and_said(caplog: pytest.LogCaptureFixture) -> None:
    """What is under way under it opens; a retired one goes. Nothing of a key is logged."""
    store = Store(fields_of(NOW, NOW + 1))
    ring = await GateKeyring.open(store)
    text = sealed(keys(NOW), NOW)
    store.fields = fields_of(NOW + 1) | {"key": "ee" * 32}
    with caplog.at_level(logging.DEBUG):
        await ring.refresh()
    assert f"the secret 'gate' has lost key, key-{NOW}, kept here" in caplog.text
    assert opened(ring.keys, text) == opened(ring.keys, OF_BEFORE) == MAP
    assert master(NOW % 251 + 1).hex() not in caplog.text
    store.fields = {f"key-{NOW + 1}": "dd" * 32, f"retired-{NOW}": "1", "retired-0": "1"}
    await ring.refresh()
    assert [refusal(lambda one=one: opened(ring.keys, one)).kind for one in (text, OF_BEFORE)] == [KEY_GONE] * 2
    store.fields = {"key": "broken"}
    await ring.refresh()
    assert NOW + 1 in ring.keys


# -- an operator


@pytest.fixture
def local(tmp_path: Path) -> LocalSecrets:
    return LocalSecrets.open(tmp_path / "secrets.json")


async def states(local: LocalSecrets, now_ms: int) -> dict[str, str]:
    return {row.name: row.state for row in await gate_keys.listed(local, now_ms)}


async def test_a_rotation_adds_and_changes_nothing(local: LocalSecrets) -> None:
    """The new key counts from ten seconds on, which is time enough for every process to have it; no former key is touched."""
    before = await local.get(GATE_SECRET)
    made = await gate_keys.rotate(local, NOW)
    after = await local.get(GATE_SECRET)
    assert (made.key_id, made.name) == (NOW + LEAD_MS, f"key-{NOW + LEAD_MS}")
    assert {name: after[name] for name in before} == dict(before)
    assert after.keys() - before.keys() == {made.name}
    assert len(set(after.values())) == 2
    assert await states(local, NOW) == {"key": "seals", made.name: "not yet"}
    assert await states(local, made.key_id) == {"key": "opens", made.name: "seals"}


async def test_a_second_rotation_waits_for_the_first(local: LocalSecrets) -> None:
    """Said twice by mistake it makes one key; when that one seals, another may come."""
    made = await gate_keys.rotate(local, NOW)
    held = await local.get(GATE_SECRET)
    with pytest.raises(Refused, match=f"{made.name} is made and does not seal yet: nothing was done"):
        await gate_keys.rotate(local, NOW + LEAD_MS - 1)
    assert await local.get(GATE_SECRET) == held
    await gate_keys.rotate(local, made.key_id)
    assert len(await local.get(GATE_SECRET)) == 3


class Busy:
    """A store in which others are faster, `times` times."""

    def __init__(self, local: LocalSecrets, times: int) -> None:
        self.local, self.left = local, times

    async def fields(self, path: str) -> frozenset[str]:
        return await self.local.fields(path)

    async def patch(self, path: str, before: Collection[str], changes: Mapping[str, str | None]) -> bool:
        self.left -= 1
        return False if self.left >= 0 else await self.local.patch(path, before, changes)


async def test_of_two_operators_one_is_first(local: LocalSecrets) -> None:
    """The other looks again; where somebody always is faster it says so."""
    made = await gate_keys.rotate(Busy(local, 3), NOW)
    assert set(await local.get(GATE_SECRET)) == {"key", made.name}
    with pytest.raises(Unavailable, match="others keep changing"):
        await gate_keys.rotate(Busy(local, 1000), NOW + DAY)
    with pytest.raises(Unavailable, match="others keep changing"):
        await gate_keys.retire(Busy(local, 1000), "key", NOW + DAY)


async def test_a_key_that_only_opens_can_be_retired(local: LocalSecrets) -> None:
    """One that seals, is to, or did until just now cannot; a second time changes nothing; the ring then says that it was retired."""
    ring = await GateKeyring.open(local)
    text = ring.seal_map("acme", "r-1", "e-1", MAP, NOW)
    made = await gate_keys.rotate(local, NOW)
    for name, at_ms, said in (
        ("key", NOW, r"key seals now: `ratchet gate rotate` makes another; accepted, for they only open: none yet"),
        (made.name, NOW, "is to seal"),
        (made.name, made.key_id, "seals now: .*; accepted, for they only open: key"),
        ("key", made.key_id + LEAD_MS - 1, "key sealed until just now"),
        ("key-1", NOW, "the gate has no key 'key-1'"),
    ):
        with pytest.raises(Refused, match=said):
            await gate_keys.retire(local, name, at_ms)
    assert len(await local.get(GATE_SECRET)) == 2
    later = made.key_id + LEAD_MS
    assert (await gate_keys.retire(local, "key", later)).state == "retired"
    held = await local.get(GATE_SECRET)
    assert set(held) == {made.name, "retired-0"}
    assert (await gate_keys.retire(local, "key", later)).state == "retired"
    assert await local.get(GATE_SECRET) == held
    assert await states(local, later) == {"key": "retired", made.name: "seals"}
    await ring.refresh()
    assert str(refusal(lambda: ring.open_map("acme", "r-1", text))) == "The gate's key was retired."


async def test_without_a_key_there_is_nothing_to_rotate(local: LocalSecrets) -> None:
    """A first key is made by whoever sets the store up."""
    await local.put(GATE_SECRET, {})
    for call in (gate_keys.rotate(local, NOW), gate_keys.retire(local, "key", NOW)):
        with pytest.raises(Refused, match="`ratchet up` makes the first"):
            await call
