"""What an erasure does, by its rules alone: holds, epochs, cuts, horizons."""

from collections.abc import Sequence
from typing import Any

import pytest
from erasing import ANN, NOW, SEGMENT_MS, TENANT, command, configs, gate, hold, route, stand, wrapped
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agents.evidence import shred
from agents.evidence.keytable import Erased, KeyTable, Wanted
from agents.evidence.shred import KEYRING, Known
from schemas.compliance import CommandForget, KeyErased, KeyEvent, KeyRemoved, KeyWrapped, SubjectErased, SubjectKept
from schemas.payload import Payload
from schemas.topics import DAY_MS, FOLDS, plans, state_topic, with_snapshots, with_texts

BOB = "b" * 32
LIVE = Known(live=1)


def erased(made: Sequence[tuple[str, Payload]]) -> SubjectErased:
    (found,) = [payload for _, payload in made if isinstance(payload, SubjectErased)]
    return found


def kept(made: Sequence[tuple[str, Payload]]) -> SubjectKept:
    (found,) = [payload for _, payload in made if isinstance(payload, SubjectKept)]
    return found


def test_one_call_makes_marker_removal_receipt_and_forgets() -> None:
    """For each route of the tenant a forget; all with the same cut, where requests end now."""
    made = shred.decide(command(), "c-1", LIVE, stand(routes=[route("cards"), route("loans")]))
    assert [name for name, _ in made] == ["marker", "removed", "receipt", "forget/cards", "forget/loans"]
    receipt = erased(made)
    assert (receipt.keys, receipt.epoch, receipt.hold_checked, receipt.erasure) == (1, 1, True, "c-1")
    assert [(row.partition, row.offset) for row in receipt.cut] == [(0, 5), (1, 7)]
    assert receipt.routes == ("cards", "loans")
    for _, payload in made:
        if isinstance(payload, KeyErased | CommandForget):
            assert (payload.cut, payload.erasure, payload.subject) == (receipt.cut, "c-1", ANN)


@pytest.mark.parametrize(
    ("row", "held"),
    [
        (hold(), True),
        (hold(subject=ANN), True),
        (hold(subject=BOB), False),
        (hold(from_ms=NOW + 1), False),
        (hold(from_ms=NOW), True),
        (hold(until_ms=NOW), False),
        (hold(until_ms=NOW + 1), True),
    ],
)
def test_a_legal_hold_stands_against_it(row: Any, held: bool) -> None:
    """While it is in force and speaks of the subject or of all: nothing is erased, and the holds are named."""
    made = shred.decide(command(), "c-1", LIVE, stand(row))
    if held:
        assert [name for name, _ in made] == ["kept"]
        assert (kept(made).reason, kept(made).holds) == ("hold", ("case-7",))
    else:
        assert erased(made).hold_checked


def test_where_nobody_said_what_is_held_nothing_is_erased() -> None:
    """A tenant without a policy: fail closed."""
    made = shred.decide(command(), "c-1", LIVE, stand(gate=None))
    assert (kept(made).reason, kept(made).settings, len(made)) == ("settings", ("policy_gate",), 1)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cleanup.policy", "delete"),
        ("cleanup.policy", "compact,delete"),
        ("max.compaction.lag.ms", str((1 << 63) - 1)),
        ("segment.ms", str(32 * DAY_MS)),
        ("min.compaction.lag.ms", str(32 * DAY_MS)),
        ("delete.retention.ms", str(31 * DAY_MS)),
        ("delete.retention.ms", "none"),
        ("delete.retention.ms", "-1"),
    ],
)
def test_a_keyring_that_would_keep_what_it_must_lose_is_named(name: str, text: str) -> None:
    """Each setting by itself; nothing is erased, for the receipt would not be true."""
    made = shred.decide(command(), "c-1", LIVE, stand(configs=configs(**{name: text})))
    assert (kept(made).reason, kept(made).settings, len(made)) == ("settings", (name.replace(".", "_"),), 1)


def test_the_tables_own_keyring_settings_pass() -> None:
    """What `ratchet up` creates, erasing accepts."""
    (plan,) = [plan for plan in plans() if plan.full == KEYRING]
    assert shred.amiss({KEYRING: plan.config}) == ()
    assert shred.amiss({}) != ()


def test_unknown_and_erased_before() -> None:
    """Without a key nothing is claimed: unknown, or erased before, by which command; what is not read yet gets no key that lasts."""
    made = shred.decide(command(), "c-1", Known(), stand(routes=[route()]))
    assert [name for name, _ in made] == ["marker", "removed", "kept", "forget/cards"]
    assert (kept(made).reason, kept(made).earlier) == ("unknown", "")
    first = made[0][1]
    assert isinstance(first, KeyErased)
    assert (first.epoch, len(first.cut), first.erasure, first.receipt) == (1, 2, "c-1", False)
    again = shred.decide(command(), "c-2", Known(marker=first), stand())
    assert kept(again).reason == "unknown"  # there is no receipt that could be named
    assert isinstance(again[1][1], KeyRemoved)
    assert again[1][1].epoch == 2
    later = shred.decide(command(), "c-3", Known(live=2, marker=first), stand())
    assert (erased(later).keys, erased(later).epoch) == (1, 2)
    marker = KeyErased(tenant=TENANT, at_ms=NOW, subject=ANN, epoch=3, cut=(), erasure="c-0")
    made = shred.decide(command(), "c-1", Known(marker=marker), stand(routes=[route()]))
    assert [name for name, _ in made] == ["marker", "removed", "kept", "forget/cards"]
    assert (kept(made).reason, kept(made).earlier) == ("erased", "c-0")
    moved, gone = made[0][1], made[1][1]
    assert isinstance(moved, KeyErased)
    assert isinstance(gone, KeyRemoved)
    assert (moved.epoch, gone.epoch, len(moved.cut), moved.erasure, moved.receipt) == (4, 4, 2, "c-0", True)


def test_the_same_command_again_makes_nothing() -> None:
    """Its receipt is there."""
    marker = KeyErased(tenant=TENANT, at_ms=NOW, subject=ANN, epoch=1, cut=(), erasure="c-1")
    assert shred.decide(command(), "c-1", Known(marker=marker), stand()) == ()


def test_the_day_is_the_latest_horizon() -> None:
    """Texts last: twice the window, retention, and the segment that a record shares; backups after all of them."""
    rows = [route("a", window_s=3600, ttl_s=60), route("b", window_s=7200, ttl_s=30 * 86_400)]
    found = shred.horizons(stand(routes=rows))
    assert found.payload_ms == NOW + 2 * 7_200_001 + 31 * DAY_MS + SEGMENT_MS + shred.TOUCH_MS
    assert found.compaction_ms == NOW + 2 * DAY_MS + shred.TOUCH_MS
    assert found.cache_ms == NOW + 30 * DAY_MS + 1
    assert found.backup_ms == 0
    backed = shred.horizons(stand(routes=rows, backup_ms=10 * DAY_MS))
    assert backed.backup_ms == backed.payload_ms + 10 * DAY_MS
    made = erased(shred.decide(command(), "c-1", LIVE, stand(routes=rows, backup_ms=10 * DAY_MS)))
    assert made.effective_at_ms == backed.backup_ms


def test_the_stores_own_digests_count_as_a_cache() -> None:
    """A keyed digest of a request is kept for seven days, whatever the routes' caches do."""
    assert shred.horizons(stand(routes=[route(ttl_s=60)])).cache_ms == NOW + 7 * DAY_MS


@pytest.mark.parametrize("name", with_texts())
def test_every_topic_with_texts_counts(name: str) -> None:
    """Longer retention of any one of them moves the day; a topic that keeps for ever leaves no day."""
    told = configs()
    compacts = told[name]["cleanup.policy"] == "compact"
    told[name]["max.compaction.lag.ms" if compacts else "retention.ms"] = str(90 * DAY_MS)
    assert shred.horizons(stand(configs=told)).payload_ms == NOW + 90 * DAY_MS + SEGMENT_MS + shred.TOUCH_MS
    told[name]["max.compaction.lag.ms" if compacts else "retention.ms"] = "-1"
    assert shred.horizons(stand(configs=told)).payload_ms == (1 << 53) - 1


def test_texts_are_where_events_carry_them() -> None:
    """A topic whose events hold messages, answers or corrections is among those that count."""
    from schemas.payload import REGISTRY
    from schemas.topics import full

    texts = {"messages", "text", "corrected", "answers", "content"}
    holding = {full(model.TOPIC) for model in REGISTRY.values() if texts & model.model_fields.keys()}
    assert holding
    assert holding <= set(with_texts())


def test_states_and_what_names_their_snapshots_count() -> None:
    """A state of a Fold and its snapshots hold texts, or what confirms a guess of one; for ever where nobody says how long."""
    assert {state_topic(name) for name in FOLDS} | {*with_snapshots()} <= {*with_texts()}
    told = {name: row for name, row in configs().items() if name in with_snapshots()}
    assert shred.snapshots_kept(told) == 31 * DAY_MS
    told["ratchet.cases.order"]["retention.ms"] = "-1"
    assert shred.snapshots_kept(told) == shred.snapshots_kept({}) == shred.NEVER


def test_only_the_tenants_routes_are_told() -> None:
    """By name, whatever the order in which the view gives them."""
    rows = [route("z"), route("other", tenant="umbrella"), route("a")]
    assert [row.settings.route for row in shred.of_tenant(rows, TENANT)] == ["a", "z"]


@given(st.permutations(range(4)))
def test_a_markers_reader_does_not_depend_on_the_order_of_partitions(order: list[int]) -> None:
    """What the shredder and the key table make of the same events is the same."""
    first = dict(shred.decide(command(), "c-1", LIVE, stand()))
    rows: list[Payload] = [wrapped(1), first["removed"], first["marker"], wrapped(2)]
    table = KeyTable()
    for number in order:
        table.apply(rows[number])
    live = table.live(TENANT, ANN)
    assert live is not None
    assert live.epoch == 2
    assert isinstance(table.state(Wanted(TENANT, ANN, (0, 4))), Erased)


class Erasures(RuleBasedStateMachine):
    """A keyring, whoever makes keys on it, and operators who erase."""

    def __init__(self) -> None:
        super().__init__()
        self.topic: dict[str, KeyEvent] = {}
        self.table = KeyTable()
        self.now, self.ends, self.made = NOW, {0: 0, 1: 0}, 0
        self.held: tuple[Any, ...] = ()
        self.cuts: list[dict[int, int]] = []
        self.receipts: list[SubjectErased] = []
        self.keys = 0

    def known(self) -> Known:
        key, marker = self.topic.get(f"{TENANT}/{ANN}"), self.topic.get(f"{TENANT}/{ANN}/erased")
        assert key is None or isinstance(key, KeyWrapped | KeyRemoved)
        assert marker is None or isinstance(marker, KeyErased)
        return shred.known(key, marker)

    def put(self, payload: Payload) -> None:
        if isinstance(payload, KeyEvent):
            self.topic[payload.event_key()] = payload
            self.table.apply(payload)

    @rule(partition=st.integers(0, 1), n=st.integers(1, 5))
    def requests_come(self, partition: int, n: int) -> None:
        self.ends[partition] += n
        self.now += 1000

    @precondition(lambda self: self.known().live == 0)
    @rule()
    def a_key_is_made(self) -> None:
        self.put(wrapped(self.known().erased + 1))
        self.keys += 1

    @rule(on=st.booleans())
    def a_hold_begins_or_ends(self, on: bool) -> None:
        self.held = (hold(),) if on else ()

    @rule(again=st.booleans())
    def somebody_erases(self, again: bool) -> None:
        self.made += 0 if again and self.made else 1
        before, erasure = self.known(), f"c-{self.made}"
        out = shred.decide(command(), erasure, before, stand(*self.held, now_ms=self.now, ends=dict(self.ends)))
        for _, payload in out:
            self.put(payload)
        receipts = [payload for _, payload in out if isinstance(payload, SubjectErased)]
        marked = any(isinstance(payload, KeyErased) for _, payload in out)
        assert not (self.held and (receipts or marked))
        assert marked == any(isinstance(payload, KeyRemoved) for _, payload in out)
        if marked:
            self.cuts.append(dict(self.ends))
        for receipt in receipts:
            assert before.live
            assert receipt.keys == 1
            assert receipt.effective_at_ms == max(receipt.horizons.model_dump().values())
            assert receipt.effective_at_ms > self.now
        self.receipts += receipts

    @invariant()
    def what_is_below_a_cut_is_erased_for_ever(self) -> None:
        for cut in self.cuts:
            for partition, end in cut.items():
                if end:
                    assert isinstance(self.table.state(Wanted(TENANT, ANN, (partition, end - 1))), Erased)

    @rule()
    def somebody_erases_while_a_key_is_made(self) -> None:
        """The key comes between the decision and what it made: it is gone with it, for it was made for what lies below the cut."""
        before = self.known()
        self.made += 1
        out = shred.decide(
            command(), f"c-{self.made}", before, stand(*self.held, now_ms=self.now, ends=dict(self.ends))
        )
        if not before.live:
            self.put(wrapped(before.erased + 1))
            self.keys += 1
        for _, payload in out:
            self.put(payload)
        self.receipts += [payload for _, payload in out if isinstance(payload, SubjectErased)]
        if out and any(isinstance(payload, KeyErased) for _, payload in out):
            self.cuts.append(dict(self.ends))
            self.keys -= 0 if before.live else 1  # it has no receipt: nobody knew of it
            assert not self.known().live

    @invariant()
    def what_is_erased_lies_wrapped_no_more(self) -> None:
        key, marker = self.topic.get(f"{TENANT}/{ANN}"), self.topic.get(f"{TENANT}/{ANN}/erased")
        if isinstance(key, KeyWrapped) and marker is not None:
            assert key.epoch > marker.epoch

    @invariant()
    def both_readers_agree(self) -> None:
        live = self.table.live(TENANT, ANN)
        assert self.known().live == (0 if live is None else live.epoch)

    @invariant()
    def each_key_has_one_receipt_or_is_there(self) -> None:
        assert sum(row.keys for row in self.receipts) == self.keys - (1 if self.known().live else 0)


Erasures.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestErasures = Erasures.TestCase


def test_a_gate_without_holds_is_enough() -> None:
    """That nothing is held was said."""
    assert shred.holds(gate(), ANN, NOW) == ()


def test_no_store_keeps_longer_than_the_horizon_says() -> None:
    """What routers and inference leave in the store of a request: digests, a session's arm, a result's text."""
    from agents.inference.actor import RESULT_S
    from agents.router.actor import SEEN_S, SESSION_S

    assert max(RESULT_S, SEEN_S, SESSION_S) * 1000 == shred.KEPT_MS
