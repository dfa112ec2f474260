"""What an erasure does: from a command, what is known of the subject's keys and how topics stand, to events. Pure.

Rules:
1. Nothing is erased against a legal hold, nor where nobody said what is held, nor where the keyring would keep what it must lose.
2. Marker, removal, receipt and what trainers are told come from one call: whoever sends them sends all or none.
3. A marker only ever grows: epoch and cut of a later one cover those of the earlier.
4. The day that a receipt names is the latest on which anything of the subject's may still be read or confirmed, never an earlier one.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from schemas.compliance import (
    CommandErase,
    CommandForget,
    Cut,
    Horizons,
    KeyErased,
    KeyRemoved,
    KeyWrapped,
    SubjectErased,
    SubjectKept,
)
from schemas.gate import GateTenant
from schemas.payload import Payload
from schemas.policies import PolicyRoute
from schemas.topics import BY_NAME, DAY_MS, LONGEST_OUTAGE_MS
from schemas.value import value

KEYRING = BY_NAME["keyring"].full
NO_POLICY = "policy_gate"  # of `settings`: nobody said what is held
NEVER = 1 << 62
TOUCH_MS = 3_600_000  # how often something is appended to the keyring, so that its segments end
KEPT_MS = (
    7 * DAY_MS
)  # the longest that a store keeps a keyed digest of a request (its `seen:`): texts of results an hour


@value
class Known:
    """A subject's keys as the keyring has them. `live`: the epoch of the key that is there, 0 for none; `marker`: the last erasure."""

    live: int = 0
    marker: KeyErased | None = None

    @property
    def erased(self) -> int:
        """Up to which epoch keys are erased."""
        return 0 if self.marker is None else self.marker.epoch


@value
class Stand:
    """How everything else stands when the command was read. `gate`: what its tenant is permitted, None where nobody said.

    `ends`: where each partition of requests ends; `configs`: settings of the keyring and of all topics with texts.
    """

    now_ms: int
    gate: GateTenant | None
    routes: Sequence[PolicyRoute]
    ends: Mapping[int, int]
    configs: Mapping[str, Mapping[str, str]]
    backup_ms: int = 0


def known(key: KeyWrapped | KeyRemoved | None, marker: KeyErased | None) -> Known:
    """From what stands under a subject's two keys. A key that a marker covers counts as none: its removal is on its way."""
    live = key.epoch if isinstance(key, KeyWrapped) else 0
    erased = 0 if marker is None else marker.epoch
    return Known(live if live > erased else 0, marker)


def covers(one: KeyErased | None, other: KeyErased) -> bool:
    """Whether a marker says all that another says."""
    if one is None or one.epoch < other.epoch:
        return False
    found = {row.partition: row.offset for row in one.cut}
    return all(found.get(row.partition, 0) >= row.offset for row in other.cut)


def holds(gate: GateTenant, subject: str, now_ms: int) -> tuple[str, ...]:
    """Ids of the legal holds that are in force and speak of the subject, or of all."""
    return tuple(sorted(row.id for row in gate.holds if row.in_force(now_ms) and row.subject in (None, subject)))


def amiss(configs: Mapping[str, Mapping[str, str]]) -> tuple[str, ...]:
    """Settings of the keyring under which a removed key would stay, or a reader could miss its removal: `_` where Kafka has a dot."""
    found = configs.get(KEYRING, {})
    wrong = [] if found.get("cleanup.policy") == "compact" else ["cleanup.policy"]
    bounded = ("max.compaction.lag.ms", "segment.ms", "min.compaction.lag.ms")
    wrong += [name for name in bounded if _ms(found, name) > LONGEST_OUTAGE_MS]
    if not LONGEST_OUTAGE_MS < _ms(found, "delete.retention.ms") < NEVER:
        wrong.append("delete.retention.ms")
    return tuple(name.replace(".", "_") for name in wrong)


def horizons(stand: Stand) -> Horizons:
    """Until when what was there before `now_ms` may be read or confirmed, by what keeps it.

    A case repeats its texts until twice its window, so what keeps texts counts from then. A record goes when the last one of its
    segment is old enough. A segment of the keyring, or of a state, ends when something is appended, which happens each `TOUCH_MS` at
    least; so often snapshots are looked for that have had their time.
    """
    routes = [row.settings for row in stand.routes]
    repeated = stand.now_ms + 2 * max((_whole_ms(route.window_s) for route in routes), default=0)
    texts = max((_kept(row) for name, row in stand.configs.items() if name != KEYRING), default=NEVER)
    gone = repeated + texts + TOUCH_MS
    ring = stand.configs.get(KEYRING, {})
    removed = stand.now_ms + _ms(ring, "segment.ms") + _ms(ring, "max.compaction.lag.ms") + TOUCH_MS
    cached = max((_whole_ms(route.routing.cache.ttl_s) for route in routes), default=0)
    return Horizons(
        backup_ms=_day(max(removed, gone) + stand.backup_ms) if stand.backup_ms else 0,
        payload_ms=_day(gone),
        compaction_ms=_day(removed),
        cache_ms=_day(stand.now_ms + max(cached, KEPT_MS)),
    )


def snapshots_kept(configs: Mapping[str, Mapping[str, str]]) -> int:
    """For how long snapshots are kept, in milliseconds: as long as topics name them. At least `NEVER`: for ever."""
    return max((_ms(row, "retention.ms") for row in configs.values()), default=NEVER)


def decide(command: CommandErase, erasure: str, keys: Known, stand: Stand) -> tuple[tuple[str, Payload], ...]:
    """Events by their identity, all to be sent or none. `erasure`: the command's id. Nothing where this command was done before."""
    if keys.marker is not None and keys.marker.erasure == erasure:
        return ()
    if (kept := _kept_for(command, erasure, keys, stand)) is not None and kept.reason in ("hold", "settings"):
        return (("kept", kept),)
    told = sorted({row.settings.route for row in stand.routes})
    cut = _cut(keys.marker, stand.ends)
    whose: dict[str, Any] = {"at_ms": stand.now_ms, "tenant": command.tenant, "subject": command.subject}
    epoch = keys.live or keys.erased + 1  # without a key the next one's, which may be in the making
    receipted = kept is None or kept.reason == "erased"
    by = kept.earlier if kept is not None and receipted else erasure  # whoever reads it asks for the receipt
    marker = ("marker", KeyErased(**whose, epoch=epoch, cut=cut, erasure=by, receipt=receipted))
    removed = ("removed", KeyRemoved(**whose, epoch=epoch))
    forgets = [(f"forget/{route}", CommandForget(**whose, route=route, erasure=by, cut=cut)) for route in told]
    if kept is not None:  # no key, or none since: requests that came and are not read yet get none that lasts
        return (marker, removed, ("kept", kept), *forgets)
    found = horizons(stand)
    receipt = SubjectErased(
        **whose,
        erasure=erasure,
        keys=keys.live - keys.erased,
        epoch=epoch,
        cut=cut,
        hold_checked=True,
        effective_at_ms=max(found.backup_ms, found.payload_ms, found.compaction_ms, found.cache_ms),
        horizons=found,
        routes=tuple(told),
        by=command.operator,
    )
    return (marker, removed, ("receipt", receipt), *forgets)


def _kept_for(command: CommandErase, erasure: str, keys: Known, stand: Stand) -> SubjectKept | None:
    """Why nothing is erased, the weightiest reason first."""

    def kept(**why: object) -> SubjectKept:
        row = {"at_ms": stand.now_ms, "tenant": command.tenant, "subject": command.subject, "erasure": erasure}
        return SubjectKept.model_validate(row | why)

    if stand.gate is None:
        return kept(reason="settings", settings=(NO_POLICY,))
    if held := holds(stand.gate, command.subject, stand.now_ms):
        return kept(reason="hold", holds=held)
    if wrong := amiss(stand.configs):
        return kept(reason="settings", settings=wrong)
    if keys.live:
        return None
    if keys.marker is not None and keys.marker.receipt:
        return kept(reason="erased", earlier=keys.marker.erasure)
    return kept(reason="unknown")


def _cut(earlier: KeyErased | None, ends: Mapping[int, int]) -> tuple[Cut, ...]:
    """Where requests end now, and nowhere below an earlier cut."""
    before = {} if earlier is None else {row.partition: row.offset for row in earlier.cut}
    return tuple(
        Cut(partition=number, offset=max(ends.get(number, 0), before.get(number, 0)))
        for number in sorted({*ends, *before})
    )


def _kept(config: Mapping[str, str]) -> int:
    """For how long a topic may hold a record, until the last one of its segment is too old, or compaction takes it."""
    name = "max.compaction.lag.ms" if config.get("cleanup.policy") == "compact" else "retention.ms"
    return _ms(config, name) + _ms(config, "segment.ms")


def _ms(config: Mapping[str, str], name: str) -> int:
    """A topic's setting in milliseconds; not there, below 0 or as large as Kafka's largest: never."""
    try:
        found = int(config.get(name, ""))
    except ValueError:
        return NEVER
    return found if 0 <= found < NEVER else NEVER


def _day(at_ms: int) -> int:
    return min(at_ms, (1 << 53) - 1)


def _whole_ms(seconds: float) -> int:
    return int(seconds * 1000) + 1


def of_tenant(rows: Iterable[PolicyRoute], tenant: str) -> list[PolicyRoute]:
    """The tenant's routes, by name."""
    return sorted((row for row in rows if row.settings.tenant == tenant), key=lambda row: row.settings.route)
