"""Proofs of principals: the published vectors, our own, and that no bit of what is covered may change."""

import hashlib
import hmac
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import principal
from schemas.codec import Encoded, encode
from schemas.compliance import CommandIncident, CommandTenant
from schemas.errors import Refused
from schemas.events import CommandApply, CommandDiscard, CommandPause, Message, RequestSubmitted, VerdictGiven
from schemas.gate import GateTenant
from schemas.principal import Credential, KeyTerm, Principal, Ring, commitment, verify
from schemas.routes import Arm, Route

NOW = 1_767_225_600_000
SECRET = bytes(range(32))
TOPIC = "ratchet.requests"
CONTRACT = Path(__file__).parents[3] / "docs" / "contract.md"


def ring(*, roles=("upstream",), tenants=(), not_before=NOW - 1000, not_after=None, name="shop", key=SECRET):
    """A ring with one principal."""
    term = KeyTerm(not_before_ms=not_before, not_after_ms=not_after, commitment=commitment(key))
    return Ring({name: Principal(roles=roles, tenants=tenants, keys={"k1": term})}, {(name, "k1"): key})


def row(**changes):
    """A proven request."""
    plain = Encoded(
        b"r-1",
        b'{"at_ms":1767225600000,"route":"banking.intent","request_id":"r-1","messages":[{"role":"user","content":"hi"}]}',
        (("ce_specversion", b"1.0"), ("ce_id", b"r-1"), ("ce_type", b"ratchet.request.submitted.v1")),
    )
    return Credential("shop", "k1", SECRET).prove(plain, at_ms=NOW, **changes)


def checked(record, *, of=None, topic=TOPIC, at_ms=NOW + 5):
    """What `verify` says of a record."""
    return verify(of or ring(), topic=topic, headers=record.headers, key=record.key, value=record.value, at_ms=at_ms)


def refused(record, **how):
    """The kind of refusal."""
    with pytest.raises(Refused) as said:
        checked(record, **how)
    assert said.value.kind in principal.KINDS
    assert SECRET.hex() not in str(said.value)
    return said.value.kind


def with_header(record, name, value):
    """The record with one header's value replaced."""
    return Encoded(record.key, record.value, tuple((n, value if n == name else v) for n, v in record.headers))


@pytest.mark.parametrize(
    ("key", "data", "mac"),
    [
        (b"\x0b" * 20, b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
        (b"Jefe", b"what do ya want for nothing?", "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
        (b"\xaa" * 20, b"\xdd" * 50, "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
        (
            b"\xaa" * 131,
            b"Test Using Larger Than Block-Size Key - Hash Key First",
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        ),
    ],
)
def test_the_hash_is_rfc_4231s(key, data, mac):
    """HMAC-SHA-256 gives what RFC 4231 publishes (test cases 1, 2, 3 and 6)."""
    assert principal._mac(key, data) == mac.encode()


def test_the_worked_example_of_the_contract_is_what_we_compute():
    """docs/contract.md shows the very bytes and the very proof that this code makes."""
    made = dict(row().headers)
    told = [made[name] for name in (principal.PRINCIPAL, principal.KEY, principal.AT, principal.UNTIL)]
    body = principal.canonical(*told, made["ce_id"], made["ce_type"], b"r-1", row().value)
    by_hand = b"".join(
        len(part).to_bytes(4, "big") + part
        for part in (
            b"ratchet-proof/1", b"shop", b"k1", b"1767225600000", b"1767226200000", b"r-1", b"ratchet.request.submitted.v1",
            b"r-1", hashlib.sha256(row().value).digest(),
        )
    )  # fmt: skip
    assert body == by_hand
    assert made[principal.PROOF].decode() == hmac.new(SECRET, by_hand, "sha256").hexdigest()
    text = re.sub(r"\s+", "", CONTRACT.read_text(encoding="utf-8"))
    for shown in (SECRET.hex(), row().value.decode(), body.hex(), made[principal.PROOF].decode()):
        assert re.sub(r"\s+", "", shown) in text


def test_a_proven_record_names_its_speaker():
    """The proof holds from five minutes before it was made until its end, and is not asked for before the first key."""
    assert checked(row()).name == "shop"
    assert checked(row(), at_ms=NOW + principal.SPAN_MS).name == "shop"
    assert refused(row(), at_ms=NOW + principal.SPAN_MS + 1) == "proof-expired"
    early = ring(not_before=0)
    assert checked(row(), of=early, at_ms=NOW - principal.AHEAD_MS).name == "shop"
    assert refused(row(), of=early, at_ms=NOW - principal.AHEAD_MS - 1) == "proof-expired"
    assert checked(row(), at_ms=NOW - 1001) is None
    assert checked(Encoded(b"r", b"{}", ()), of=principal.EMPTY) is None


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_changed_bit_of_anything_covered_is_refused(data):
    """Principal, key id, times, proof, id, type, key, payload: one flipped bit anywhere, and the record is refused."""
    record = row()
    fields = {name: value for name, value in record.headers if name != "ce_specversion"}
    fields |= {"key": record.key, "value": record.value}
    where = data.draw(st.sampled_from(sorted(fields)))
    at = data.draw(st.integers(0, 8 * len(fields[where]) - 1))
    changed = bytearray(fields[where])
    changed[at // 8] ^= 1 << at % 8
    if where in ("key", "value"):
        forged = Encoded(**{"key": record.key, "value": record.value, where: bytes(changed)}, headers=record.headers)
    else:
        forged = with_header(record, where, bytes(changed))
    assert refused(forged) in {"forged", "unknown-key"}


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.binary(max_size=40), min_size=8, max_size=8), st.lists(st.binary(max_size=40), min_size=8, max_size=8)
)
def test_different_parts_are_different_bytes(one, other):
    """No two lists of parts share an encoding: a length can not move from one part to its neighbour."""
    assert (principal.canonical(*one) == principal.canonical(*other)) == (one == other)


def test_a_boundary_moved_between_neighbours_is_refused():
    """The same letters cut elsewhere (principal `sho`, key `pk1`) are another record."""
    moved = with_header(with_header(row(), principal.PRINCIPAL, b"sho"), principal.KEY, b"pk1")
    term = KeyTerm(not_before_ms=0, commitment=commitment(SECRET))
    both = Ring({"sho": Principal(roles=("upstream",), keys={"pk1": term})}, {("sho", "pk1"): SECRET})
    assert refused(moved, of=both) == "forged"


def test_a_proof_moved_to_another_record_is_refused():
    """Same id with another payload; same payload under another id or key: the proof of one is none for the other."""
    other = Encoded(b"r-1", b'{"other": true}', row().headers)
    assert refused(other) == "forged"
    assert refused(Encoded(b"r-2", row().value, row().headers)) == "forged"
    assert refused(with_header(row(), "ce_id", b"r-2")) == "forged"


@pytest.mark.parametrize("name", principal.OURS)
def test_a_record_that_lacks_a_header_is_unproven(name):
    """All five or none; the refusal names the missing one."""
    less = Encoded(b"r-1", row().value, tuple(pair for pair in row().headers if pair[0] != name))
    assert refused(less) == "unproven"


@pytest.mark.parametrize("name", [*principal.OURS, "ce_id", "ce_type"])
def test_a_header_that_stands_there_twice_is_refused(name):
    """Else what is verified and what is read could be two things."""
    value = dict(row().headers)[name]
    assert refused(Encoded(b"r-1", row().value, (*row().headers, (name, value)))) == "proof-malformed"


@pytest.mark.parametrize("missing", ["key", "value", "ce_id", "ce_type"])
def test_what_a_proof_covers_must_be_there(missing):
    """A record without id, type, key or payload has nothing that a proof could bind."""
    headers = tuple(pair for pair in row().headers if pair[0] != missing)
    key, value = (None if missing == "key" else b"r-1"), (None if missing == "value" else row().value)
    with pytest.raises(Refused) as said:
        verify(ring(), topic=TOPIC, headers=headers, key=key, value=value, at_ms=NOW)
    assert said.value.kind == "proof-malformed"


def test_keys_count_in_their_own_time_only():
    """Not before, not from its end on; a revoked last key does not open the door to the unproven."""
    ended = ring(not_after=NOW + 5)
    assert checked(row(), of=ended, at_ms=NOW + 4).name == "shop"
    assert refused(row(), of=ended, at_ms=NOW + 5) == "key-not-valid"
    bare = Encoded(b"r-1", row().value, row().headers[:3])
    assert refused(bare, of=ended, at_ms=NOW + 10_000) == "unproven"
    two = Ring(
        {
            "old": Principal(
                roles=("upstream",), keys={"k0": KeyTerm(not_before_ms=0, commitment=commitment(b"o" * 32))}
            ),
            **ring(not_before=NOW + 100).principals,
        },
        {("old", "k0"): b"o" * 32, ("shop", "k1"): SECRET},
    )
    assert refused(row(), of=two, at_ms=NOW + 99) == "key-not-valid"
    assert checked(row(), of=two, at_ms=NOW + 100).name == "shop"


@pytest.mark.parametrize("span", [-1, principal.LONGEST_MS + 1])
def test_a_proof_may_not_hold_longer_than_a_day(span):
    """A genuine proof with an end before its beginning, or more than a day later, is none."""
    assert refused(row(span_ms=span), at_ms=NOW - 1) == "proof-malformed"


@pytest.mark.parametrize("time", ["+1767225600000", "01767225600000", "1767225600000.0", " 1767225600000", "", "soon"])
def test_times_are_plain_decimals(time):
    """Even a genuine proof over an odd spelling of a time is refused: there is one spelling."""
    record = row()
    told = dict(record.headers) | {principal.AT: time.encode()}
    body = principal.canonical(
        b"shop", b"k1", told[principal.AT], told[principal.UNTIL], told["ce_id"], told["ce_type"], b"r-1", record.value
    )
    told[principal.PROOF] = hmac.new(SECRET, body, "sha256").hexdigest().encode()
    assert refused(Encoded(b"r-1", record.value, tuple(told.items()))) == "proof-malformed"


@pytest.mark.parametrize(
    ("role", "topics"),
    [
        ("upstream", {"ratchet.requests", "ratchet.verdicts"}),
        ("reviewer", {"ratchet.verdicts"}),
        ("operator", {"ratchet.commands"}),
    ],
)
def test_a_role_speaks_on_its_topics_and_no_other(role, topics):
    """An upstream's key gives no commands, an operator's no requests."""
    for topic in principal.PROVEN:
        if topic in topics:
            assert checked(row(), of=ring(roles=(role,)), topic=topic).name == "shop"
        else:
            assert refused(row(), of=ring(roles=(role,)), topic=topic) == "wrong-role"


def payloads(tenant="default", by="shop"):
    """One of each kind that says who speaks, or for which tenant."""
    route = Route(
        route="r", compliance="off", arms=(Arm(arm="base", base="sha256:aa"),), champion="base", tenant=tenant
    )
    return {
        "request": RequestSubmitted(
            tenant=tenant, at_ms=1, route="r", request_id="a", messages=(Message(role="user", content="x"),)
        ),
        "verdict": VerdictGiven(tenant=tenant, at_ms=1, route="r", request_id="a", by=by),
        "pause": CommandPause(tenant=tenant, at_ms=1, route="r", operator=by),
        "apply": CommandApply(tenant="default", at_ms=1, route="r", operator=by, settings=route),
        "tenant": CommandTenant(tenant="default", at_ms=1, operator=by, settings=GateTenant(tenant=tenant)),
        "incident": CommandIncident(tenant=tenant, at_ms=1, operator=by, incident="i", step="contain"),
        "discard": CommandDiscard(
            tenant=tenant,
            at_ms=1,
            operator=by,
            agent="judge",
            topic="ratchet.commands",
            partition=0,
            offset=1,
            letter_topic="ratchet.commands.dlq",
            letter_partition=0,
            letter_offset=2,
        ),
    }


@pytest.mark.parametrize("kind", ["verdict", "pause", "apply", "tenant", "incident", "discard"])
def test_a_verdict_and_a_command_name_who_proved_them(kind):
    """`by` and `operator` are the proven principal, or the record is refused."""
    speaker = checked(row())
    speaker.admits(payloads()[kind])
    with pytest.raises(Refused) as said:
        speaker.admits(payloads(by="ada")[kind])
    assert said.value.kind == "wrong-principal"


@pytest.mark.parametrize("kind", ["request", "verdict", "pause", "apply", "tenant", "incident", "discard"])
def test_a_bound_principal_speaks_for_its_tenant_alone(kind):
    """Another tenant is refused, in a command's settings too; an unbound principal speaks for all."""
    bound = checked(row(), of=ring(tenants=("default",)))
    bound.admits(payloads()[kind])
    with pytest.raises(Refused) as said:
        bound.admits(payloads(tenant="other")[kind])
    assert said.value.kind == "foreign-tenant"
    checked(row()).admits(payloads(tenant="other")[kind])


def test_nothing_shows_a_key():
    """Neither a repr of what holds keys, nor the principal as it is kept and listed."""
    held = ring()
    shown = [repr(held), repr(held.find(b"shop", b"k1")), repr(Credential("shop", "k1", SECRET)), repr(vars(held))]
    shown += [held.principals["shop"].model_dump_json()]
    assert not any(SECRET.hex() in text or repr(SECRET) in text for text in shown)


def test_a_record_is_proven_once_however_often_it_is_proven():
    """Proving again replaces the proof: a copy that is sent anew has one."""
    again = Credential("shop", "k1", SECRET).prove(row(), at_ms=NOW + 1000)
    assert len(again.headers) == len(row().headers)
    assert checked(again, at_ms=NOW + 1000 + principal.SPAN_MS).name == "shop"


def test_what_encode_makes_can_be_proven():
    """The records of our own senders carry what a proof covers."""
    plain = encode(payloads()["request"], event_id="e", source="s", traceparent="")
    proven = Credential("shop", "k1", SECRET).prove(plain, at_ms=NOW)
    assert proven.headers[: len(plain.headers)] == plain.headers
    assert checked(proven).name == "shop"
