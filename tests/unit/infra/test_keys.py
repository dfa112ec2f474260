"""Principals' keys as the secret store holds them: handed out, rotated, revoked, and never lost or shown."""

import asyncio
import json
import logging
import stat
from pathlib import Path

import pytest

from infra import keys
from infra.secrets import LocalSecrets
from schemas.codec import Encoded
from schemas.errors import Refused
from schemas.principal import EMPTY, KINDS, Credential, commitment, verify

NOW = 1_767_225_600_000
HOUR = 3_600_000


@pytest.fixture
def store(tmp_path: Path) -> LocalSecrets:
    return LocalSecrets.open(tmp_path / "secrets.json")


@pytest.fixture
def seen(tmp_path: Path) -> Path:
    return tmp_path / "principals.seen"


def plain(name: str = "r-1") -> Encoded:
    """A record that can be proven."""
    return Encoded(name.encode(), b"{}", (("ce_id", name.encode()), ("ce_type", b"ratchet.request.submitted.v1")))


async def heard(store: LocalSecrets, given: Credential, at_ms: int, known: keys.Ring = EMPTY) -> str:
    """Who is heard in a record proven by `given` and appended at `at_ms`, or the kind of refusal."""
    row = given.prove(plain(), at_ms=at_ms)
    ring = await keys.load_ring(store, known)
    try:
        speaker = verify(ring, topic="ratchet.requests", headers=row.headers, key=row.key, value=row.value, at_ms=at_ms)
    except Refused as fault:
        return fault.kind if fault.kind in KINDS else f"not of ours: {fault}"
    return "" if speaker is None else speaker.name


async def test_an_empty_store_asks_for_no_proof(store: LocalSecrets) -> None:
    """No key, no ring: everything is taken unproven."""
    assert (await keys.load_ring(store)).since_ms is None


async def test_a_key_counts_ten_seconds_after_it_was_added(store: LocalSecrets) -> None:
    """Time enough for every process to have seen it; from then on all must be proven."""
    kid = await keys.add(store, "shop", ["upstream"], ["a"], now_ms=NOW)
    with pytest.raises(Refused, match="no key of principal 'shop' counts now"):
        await keys.credential(store, "shop", "upstream", NOW)
    starts = NOW + keys.LEAD_MS
    given = await keys.credential(store, "shop", "upstream", starts)
    assert given.kid == kid
    assert await heard(store, given, starts - 1) == ""
    assert await heard(store, given, starts) == "shop"
    assert keys.LEAD_MS >= 3 * keys.REFRESH_S * 1000


async def test_rotation_overlaps_and_revocation_ends(store: LocalSecrets) -> None:
    """Both keys count during the overlap, then the new one alone; revoked, none does; before, all of it stays as it was."""
    await keys.ensure(store, {"shop": ["upstream"]}, now_ms=NOW)
    old = await keys.credential(store, "shop", "upstream", NOW)
    await keys.rotate(store, "shop", now_ms=NOW + HOUR, overlap_ms=HOUR)
    starts = NOW + HOUR + keys.LEAD_MS
    new = await keys.credential(store, "shop", "upstream", starts)
    assert old.kid != new.kid
    assert old.key != new.key
    assert [await heard(store, old, at) for at in (NOW, starts, starts + HOUR - 1)] == ["shop"] * 3
    assert await heard(store, old, starts + HOUR) == "key-not-valid"
    assert [await heard(store, new, at) for at in (starts - 1, starts)] == ["key-not-valid", "shop"]
    ended = await keys.revoke(store, "shop", now_ms=starts + HOUR)
    assert set(ended) == {old.kid, new.kid}
    assert await heard(store, new, starts + HOUR + keys.LEAD_MS) == "key-not-valid"
    assert await heard(store, new, starts) == "shop"
    assert await heard(store, old, NOW) == "shop"


async def test_a_later_ring_says_the_same_of_an_earlier_record(store: LocalSecrets) -> None:
    """Whatever is added, rotated and revoked later: each record is heard as by the ring of its own time."""
    await keys.ensure(store, {"shop": ["upstream"]}, now_ms=NOW)
    given = await keys.credential(store, "shop", "upstream", NOW)
    times = [NOW - 1, NOW, NOW + HOUR - 1]
    first = [await heard(store, given, at) for at in times]
    await keys.add(store, "other", ["operator"], [], now_ms=NOW + HOUR)
    await keys.rotate(store, "shop", now_ms=NOW + HOUR, overlap_ms=0)
    await keys.revoke(store, "shop", now_ms=NOW + 2 * HOUR)
    assert [await heard(store, given, at) for at in times] == first


async def test_an_end_is_never_put_off(store: LocalSecrets) -> None:
    """A key that has ended, or was given a shorter life, does not come back by rotating or revoking again."""
    await keys.add(store, "shop", ["upstream"], [], now_ms=NOW, lead_ms=0, valid_ms=1000)
    before = (await keys.principals(store))["shop"]
    await keys.rotate(store, "shop", now_ms=NOW + HOUR, overlap_ms=HOUR)
    await keys.revoke(store, "shop", now_ms=NOW + HOUR)
    after = (await keys.principals(store))["shop"]
    assert all(after.keys[kid] == term for kid, term in before.keys.items())


@pytest.mark.parametrize(
    ("name", "tenants", "said"),
    [("no good", [], "principal 'no good'"), ("shop\n", [], "principal"), ("shop", ["no good"], "tenant 'no good'")],
)
async def test_names_are_ids(store: LocalSecrets, name: str, tenants: list[str], said: str) -> None:
    """A name that could not stand in a header is refused before anything is written."""
    with pytest.raises(Refused, match=said):
        await keys.add(store, name, ["upstream"], tenants, now_ms=NOW)
    assert await keys.principals(store) == {}


async def test_wrong_uses_are_refused_by_name(store: LocalSecrets) -> None:
    """Added twice, unknown, another role, an unknown key: each says what there is."""
    await keys.ensure(store, {"shop": ["upstream"]}, now_ms=NOW)
    with pytest.raises(Refused, match="is there already"):
        await keys.add(store, "shop", ["operator"], [], now_ms=NOW)
    with pytest.raises(Refused, match=r"'bank' is not known.*accepted: shop .*principal add bank --role upstream"):
        await keys.credential(store, "bank", "upstream", NOW)
    with pytest.raises(Refused, match=r"has not the role operator; accepted: nobody yet"):
        await keys.credential(store, "shop", "operator", NOW)
    with pytest.raises(Refused, match=r"'bank' is not known; known: shop"):
        await keys.rotate(store, "bank", now_ms=NOW, overlap_ms=0)
    with pytest.raises(Refused, match="has no key 'k-0'"):
        await keys.revoke(store, "shop", now_ms=NOW, kid="k-0")


async def test_ensure_adds_what_is_missing_only(store: LocalSecrets) -> None:
    """Each `up` may say the same: keys that are there stay, revoked ones too."""
    assert await keys.ensure(store, keys.LOCAL, now_ms=NOW) == tuple(keys.LOCAL)
    await keys.revoke(store, "demo", now_ms=NOW)
    before = await keys.principals(store)
    assert await keys.ensure(store, keys.LOCAL, now_ms=NOW + HOUR) == ()
    assert await keys.principals(store) == before


async def test_many_at_once_lose_nothing(store: LocalSecrets, tmp_path: Path) -> None:
    """Operators of several processes add principals at the same time: all of them are there, each with its key."""

    def work(number: int) -> str:
        own = LocalSecrets.open(tmp_path / "secrets.json")
        return asyncio.run(keys.add(own, f"shop-{number}", ["upstream"], [], now_ms=NOW))

    await asyncio.gather(*(asyncio.to_thread(work, n) for n in range(8)))
    ring = await keys.load_ring(store)
    assert sorted(ring.principals) == [f"shop-{n}" for n in range(8)]
    assert stat.S_IMODE((tmp_path / "secrets.json").stat().st_mode) == 0o600


async def test_a_keyring_follows_the_store(store: LocalSecrets, seen: Path) -> None:
    """What is added is known a refresh later; the keys that were known are not read again."""
    await keys.ensure(store, {"shop": ["upstream"]}, now_ms=NOW)
    keyring = await keys.Keyring.open(store, seen)
    following = asyncio.create_task(keyring.follow(0.01))
    await keys.ensure(store, {"bank": ["operator"]}, now_ms=NOW)
    await asyncio.sleep(0.2)
    assert set(keyring.ring.principals) == {"shop", "bank"}
    same = keyring.ring
    await keyring.refresh()
    assert keyring.ring is same
    following.cancel()


@pytest.mark.parametrize(
    "loss",
    [
        lambda held: {},
        lambda held: {name: text for name, text in held.items() if name != "shop"},
        lambda held: {**held, "shop": json.dumps(json.loads(held["shop"]) | {"keys": {}})},
        lambda held: {**held, "shop": "{"},
    ],
    ids=["all", "one", "its keys", "damaged"],
)
async def test_a_store_that_loses_keys_turns_no_proof_off(
    store: LocalSecrets, seen: Path, caplog: pytest.LogCaptureFixture, loss
) -> None:
    """A process keeps what it knew, and says so."""
    await keys.ensure(store, {"shop": ["upstream"], "bank": ["operator"]}, now_ms=NOW)
    keyring = await keys.Keyring.open(store, seen)
    ring = keyring.ring
    await store.put(keys.INDEX, loss(await store.get(keys.INDEX)))
    with caplog.at_level(logging.WARNING, "ratchet"):
        await keyring.refresh()
    assert keyring.ring is ring
    assert "stay as they were" in caplog.text


async def test_a_key_that_does_not_fit_is_refused_without_being_said(store: LocalSecrets, seen: Path) -> None:
    """Another key under the same id, a short one, none: the commitment tells, and no message holds a key."""
    await keys.ensure(store, {"shop": ["upstream"]}, now_ms=NOW)
    path = f"{keys.INDEX}/shop"
    (kid,) = await store.get(path)
    for wrong in ("ab" * 32, "ab" * 8, "not hex", ""):
        await store.put(path, {kid: wrong})
        with pytest.raises(Refused, match="fits its commitment") as refused:
            await keys.Keyring.open(store, seen)
        assert not wrong or wrong not in str(refused.value)


async def test_no_key_is_shown(store: LocalSecrets, seen: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither in the index, nor in a repr, nor in a log; a commitment is not the key's plain hash."""
    with caplog.at_level(logging.DEBUG):
        await keys.ensure(store, keys.LOCAL, now_ms=NOW)
        keyring = await keys.Keyring.open(store, seen)
        given = await keys.credential(store, "demo", "upstream", NOW)
    secret = given.key.hex()
    shown = [json.dumps(dict(await store.get(keys.INDEX))), repr(keyring.ring), repr(given), caplog.text]
    assert not any(secret in text or repr(given.key) in text for text in shown)
    assert commitment(given.key) in shown[0]


def test_a_store_that_was_emptied_turns_no_proof_off_at_a_restart(store: LocalSecrets, seen: Path) -> None:
    """The start is refused by the file's name; without that file it begins anew."""
    keyring = asyncio.run(keys.Keyring.open(store, seen))
    assert not seen.exists()
    asyncio.run(keys.ensure(store, {"shop": ["upstream"]}, now_ms=NOW))
    asyncio.run(keyring.refresh())
    assert seen.exists()
    asyncio.run(store.put(keys.INDEX, {}))
    with pytest.raises(Refused, match=str(seen)):
        asyncio.run(keys.Keyring.open(store, seen))
    seen.unlink()
    assert asyncio.run(keys.Keyring.open(store, seen)).ring.since_ms is None


async def test_another_process_may_see_the_first_key_first(store: LocalSecrets, seen: Path) -> None:
    """One that has not read it yet goes on, and reads it at its next look."""
    keyring = await keys.Keyring.open(store, seen)
    seen.touch()  # noqa: ASYNC240  what the other does
    await keyring.refresh()
    assert keyring.ring.since_ms is None
    await keys.ensure(store, {"shop": ["upstream"]}, now_ms=NOW)
    await keyring.refresh()
    assert set(keyring.ring.principals) == {"shop"}
