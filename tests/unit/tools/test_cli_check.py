"""`ratchet evidence check`: what passes, what does not, and what is not known, trial by trial."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from infra.settings import load
from schemas.compliance import AccessChecked, ConfigObserved
from schemas.errors import Refused, Unavailable
from schemas.principal import KeyTerm, Principal
from schemas.topics import DAY_MS, plans
from streams.acl import rights
from streams.memory import MemoryBroker, MemoryProducer, MemoryReader
from streams.port import TP, Broker, Denied, Lost, Outgoing, ShutOut
from streams.shapes import Record
from tools.access import principals
from tools.cli import trials_access, trials_config, trials_roles
from tools.cli.trials import Trial, observation
from tools.cli.trials_run import made_s
from tools.doctor import Check
from tools.stack import AGENT_GROUPS

NOW_MS = 1_800_000_000_000
WRITE = trials_roles.Foreign("upstream", "write", "answers")
READ = trials_roles.Foreign("auditor", "read", "requests")


class Guarded(MemoryBroker):
    """Lets nobody write or read these topics; a record may stand nowhere, whoever writes it."""

    def __init__(self, *closed: str) -> None:
        super().__init__(2)
        self.closed = closed

    def append(self, tp: TP, row: Outgoing, owner: str | None) -> Record:
        raise AssertionError(f"a record was left on {tp[0]}")

    def producer(self) -> MemoryProducer:
        return _Writer(self)

    def reader(self, positions: Mapping[TP, int]) -> MemoryReader:
        if any(topic in self.closed for topic, _ in positions):
            raise Denied("may not read")
        return super().reader(positions)


class _Writer(MemoryProducer):
    async def send(self, topic: str, partition: int, records: Sequence[Outgoing]) -> None:
        assert isinstance(self.broker, Guarded)
        if topic in self.broker.closed:
            raise Denied("may not write")
        await super().send(topic, partition, records)


def opened(broker: Broker) -> Callable[[], Awaitable[Broker]]:
    """As what connects."""

    async def open_() -> Broker:
        return broker

    return open_


@pytest.mark.parametrize("row", [WRITE, READ])
async def test_a_user_who_is_refused_passes_and_one_who_is_not_does_not(row: trials_roles.Foreign) -> None:
    """The broker's refusal is the pass. Where there is none, nothing was written."""
    assert (await trials_roles.kafka_role(row, opened(Guarded(f"ratchet.{row.topic}")))).passed is True
    found = await trials_roles.kafka_role(row, opened(Guarded()))
    assert (found.passed, found.what) == (False, f"{row.user}-{row.verb}s-{row.topic}")
    assert "acl" in found.fix


@pytest.mark.parametrize("fault", [Lost("away"), ShutOut("who?"), Refused("no password"), Unavailable("sealed")])
async def test_a_trial_that_could_not_be_made_is_no_pass(fault: Exception) -> None:
    """A broker or a store that is away, and a user who cannot even come in, say nothing of rights."""

    async def open_() -> Broker:
        raise fault

    found = await trials_roles.kafka_role(WRITE, open_)
    assert found.passed is None
    assert observation(found, at_ms=1, by="alice") is None


def test_no_trial_asks_for_what_the_code_allows() -> None:
    """Each foreign work is foreign: the declared rights of that user do not hold it, and every other user there is."""
    users = principals(AGENT_GROUPS)
    for row in trials_roles.KAFKA:
        if row.user == "shredder" and row.user not in users:
            continue
        held = {(right.operation, right.name) for work in users[row.user] for right in rights(work)}
        assert (row.verb, f"ratchet.{row.topic}") not in held, row
    assert len({row.what for row in trials_roles.KAFKA}) == len(trials_roles.KAFKA)


@pytest.mark.parametrize(
    ("fault", "passed"),
    [
        (Refused('Vault refused GET x: {"errors":["1 error: permission denied"]}', kind="vault"), True),
        (Refused('Vault refused GET x: {"errors":["no such key"]}', kind="vault"), False),
        (Unavailable("sealed"), None),
        (None, False),
    ],
)
def test_only_a_denied_permission_is_a_pass_in_vault(fault: Exception | None, passed: bool | None) -> None:
    """That a key is not there is told only to who may look; a Vault that is away tells nothing."""

    def call(_: trials_roles.Sealed) -> object:
        if fault is not None:
            raise fault
        return {}

    assert trials_roles.vault_role(trials_roles.VAULTED[0], call).passed is passed


def test_a_stack_in_the_clear_passes_no_trial_of_rights() -> None:
    """Nothing is tried there and nothing pretended: every row says what to do."""
    for found, word in ((trials_roles.without_rights(), "--secure"), (trials_roles.without_roles(), "--vault")):
        assert found
        assert {trial.passed for trial in found} == {False}
        assert all(word in trial.fix for trial in found)


def test_connections_over_tls(tls_broker: tuple[str, Path]) -> None:
    """A listener over TLS answers nobody in the clear, and is trusted under its own authority alone."""
    where, authority = tls_broker
    assert [trial.passed for trial in trials_access.transport(where, authority)] == [True, True]
    assert [trial.passed for trial in trials_access.transport("127.0.0.1:1", authority)] == [None, None]
    in_clear, unknown = trials_access.transport(where, None)
    assert (in_clear.passed, unknown.passed) == (True, False)


async def test_a_shared_password_is_found_and_not_shown() -> None:
    """Two users with one password are named, and nothing of it."""
    held = {"router": "hunter-2", "trust": "other-one", "judge": "hunter-2"}

    async def password(user: str) -> str | None:
        return held.get(user)

    found = await trials_access.passwords_differ([*held, "nobody"], password)
    assert (found.passed, found.detail) == (False, "one password for judge and router")
    held["judge"] = "third-one"
    assert (await trials_access.passwords_differ(list(held), password)).passed is True
    assert (await trials_access.passwords_differ(["nobody"], password)).passed is False


def principal(commitment: str, since_ms: int = NOW_MS) -> Principal:
    """With one key."""
    term = KeyTerm(not_before_ms=since_ms, commitment=f"sha256:{commitment * 64}")
    return Principal(roles=("operator",), keys={"k-1": term})


def test_a_shared_key_of_principals_is_found() -> None:
    """By the commitments: no key is read for it. Without any key everything is taken unproven, which is no pass."""
    assert trials_access.keys_differ({"a": principal("1"), "b": principal("2")}).passed is True
    found = trials_access.keys_differ({"a": principal("1"), "b": principal("1"), "c": principal("2")})
    assert (found.passed, found.detail) == (False, "one key for a and b")
    assert trials_access.keys_differ({}).passed is False


@pytest.mark.parametrize(
    ("kind", "passed"), [("unproven", True), ("unknown-route", False), ("released", False), ("", None)]
)
def test_a_request_without_a_proof(kind: str, passed: bool | None) -> None:
    """Refused for the proof it passes; refused for anything else, it had been taken; without an outcome nothing is known."""
    assert trials_access.without_proof(kind).passed is passed


def test_one_user_for_all_is_no_pass() -> None:
    """Nor is a broker that asks nobody."""
    assert trials_access.own_users(None, over_tls=True).passed is True
    assert trials_access.own_users("everybody", over_tls=True).passed is False
    assert trials_access.own_users(None, over_tls=False).passed is False


class ShutDoor(MemoryBroker):
    """Lets in whom the test says."""

    def __init__(self, fault: Exception | None) -> None:
        super().__init__(1)
        self.fault = fault

    def reachable(self) -> None:
        if self.fault is not None:
            raise self.fault


@pytest.mark.parametrize(("fault", "passed"), [(ShutOut("wrong"), True), (Lost("away"), None), (None, False)])
async def test_a_wrong_password_must_be_shut_out(fault: Exception | None, passed: bool | None) -> None:
    """Coming in is no pass; a broker that is away tells nothing; the password is another one each time."""
    words: list[str] = []

    def open_(word: str) -> Broker:
        words.append(word)
        return ShutDoor(fault)

    assert (await trials_access.wrong_password("operator", open_)).passed is passed
    await trials_access.wrong_password("operator", open_)
    assert len(set(words)) == 2


def configs(**more: dict[str, str]) -> dict[str, dict[str, str]]:
    """As brokers tell them: the table's, and Kafka's defaults."""
    defaults = {
        "max.compaction.lag.ms": str((1 << 63) - 1),
        "delete.retention.ms": str(DAY_MS),
        "retention.ms": str(7 * DAY_MS),
    }
    found = {plan.full: defaults | plan.config for plan in plans()}
    for name, values in more.items():
        found[f"ratchet.{name}"] |= values
    return found


def verdicts(trials: Any) -> dict[str, bool | None]:
    """What of each."""
    return {trial.what: trial.passed for trial in trials}


def test_topic_settings_that_erasure_stands_on() -> None:
    """A keyring that need not be compacted, or forgets an erasure within a day, is no pass; one as it must be is."""
    good = {"cleanup.policy": "compact", "max.compaction.lag.ms": "86400000", "delete.retention.ms": str(40 * DAY_MS)}
    assert verdicts(trials_config.topics(configs(keyring=good))) == {
        "compaction-lag": True,
        "keyring-compaction": True,
        "keyring-tombstones": True,
        "topic-retention": True,
    }
    never = {"max.compaction.lag.ms": str((1 << 63) - 1), "delete.retention.ms": str(DAY_MS)}
    found = verdicts(trials_config.topics(configs(keyring=never, commands={"retention.ms": str(182 * DAY_MS)})))
    assert [name for name, passed in found.items() if not passed] == [
        "keyring-compaction",
        "keyring-tombstones",
        "topic-retention",
    ]
    assert (
        verdicts(trials_config.topics(configs(keyring=good | {"cleanup.policy": "delete"})))["keyring-compaction"]
        is False
    )
    assert verdicts(trials_config.topics({}))["compaction-lag"] is False


def test_where_secrets_and_answers_travel() -> None:
    """A real store, Kafka over TLS; what is in the clear may not leave the machine."""
    safe = load(
        {
            "RATCHET_SECRETS": "vault",
            "VAULT_ADDR": "https://vault.example:8200",
            "RATCHET_KAFKA_SECURITY": "sasl_ssl",
            "RATCHET_KAFKA_CA": "ca.pem",
            "REDIS_URL": "rediss://cache.example/0",
        }
    )
    assert set(verdicts(trials_config.stores(safe)).values()) == {True}
    first_look = load({"REDIS_URL": "redis://127.0.0.1:6379/0"})
    assert verdicts(trials_config.stores(first_look)) == {
        "secret-store": False,
        "kafka-tls": False,
        "redis-transport": True,
    }
    far = safe.model_copy(update={"redis_url": "redis://cache.example/0", "vault_addr": "http://vault.example:8200"})
    found = verdicts(trials_config.stores(far))
    assert (found["redis-transport"], found["vault-transport"]) == (False, False)


def test_files_with_secrets_are_their_owners_alone(tmp_path: Path) -> None:
    """A file that others may read is named by its name; certificates without keys are anybody's; without a stack nothing is known."""
    assert trials_config.files(tmp_path).passed is None
    (tmp_path / "data" / "tls").mkdir(parents=True)
    for name, mode, content in (
        ("env", 0o600, "A=b"),
        ("data/tls/ca.pem", 0o644, "CERTIFICATE"),
        ("data/tls/ca.key", 0o600, "PRIVATE KEY"),
    ):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(mode)
    found = trials_config.files(tmp_path)
    assert (found.passed, found.detail) == (True, "2 files, for their owner alone")
    (tmp_path / "data" / "tls" / "ca.key").chmod(0o640)
    assert (trials_config.files(tmp_path).passed, trials_config.files(tmp_path).detail) == (
        False,
        "others may read ca.key",
    )


def test_old_keys_and_loose_keys() -> None:
    """Age counts from the latest version; a key that may leave Vault or be deleted is no pass; no key at all neither."""
    row = {"latest_version": 2, "keys": {"1": 1, "2": {"creation_time": "2027-01-15T08:00:00Z"}}}
    assert made_s(row) == NOW_MS / 1000
    assert made_s({"latest_version": 1, "keys": {"1": 5}}) == 5.0
    names = {"notary": {"exportable": False, "deletion_allowed": False}}
    young = trials_config.transit_ages(names, {"notary": NOW_MS / 1000 - 86_400}, now_s=NOW_MS / 1000, most_days=365)
    assert set(verdicts(young).values()) == {True}
    old = trials_config.transit_ages(
        {"notary": {"deletion_allowed": True}},
        {"notary": NOW_MS / 1000 - 366 * 86_400},
        now_s=NOW_MS / 1000,
        most_days=365,
    )
    assert set(verdicts(old).values()) == {False}
    assert trials_config.principal_ages({"a": principal("1")}, now_ms=NOW_MS, most_days=1).passed is True
    assert (
        trials_config.principal_ages({"a": principal("1", NOW_MS - 2 * DAY_MS)}, now_ms=NOW_MS, most_days=1).passed
        is False
    )
    assert trials_config.principal_ages({}, now_ms=NOW_MS, most_days=1).passed is False


def test_the_log_is_kept_for_its_time() -> None:
    """From its first entry on; a tenant that wants less than 183 days is named; without tenants nothing is said of them."""
    assert verdicts(trials_config.log_kept(True, 9, {})) == {"log-kept-whole": True}
    assert verdicts(trials_config.log_kept(False, 9, {"acme": 182, "globex": 183})) == {
        "log-kept-whole": False,
        "tenant-retention": False,
    }
    assert verdicts(trials_config.log_kept(True, 9, {"acme": 183}))["tenant-retention"] is True


def test_the_doctors_findings_count_where_controls_ask_for_them() -> None:
    """Topics and witnesses; what else it looks at is no control's."""
    checks = [
        Check("topics", True, "as the table says"),
        Check("witness", False, "nobody watches"),
        Check("disk", False, "full"),
    ]
    assert verdicts(trials_config.doctored(checks)) == {"topics-as-declared": True, "log-witnessed": False}


def test_what_is_recorded() -> None:
    """A trial of access and a setting that was read, in the events' own words; addresses and files are not among them."""
    event = observation(Trial("role", "upstream-writes-answers", False, "at 127.0.0.1:1", "do"), at_ms=7, by="alice")
    assert event == AccessChecked(at_ms=7, check="role", what="upstream-writes-answers", passed=False, by="alice")
    event = observation(Trial("config", "kafka-tls", True, "yes"), at_ms=7, by="alice")
    assert event == ConfigObserved(at_ms=7, what="kafka-tls", passed=True, by="alice")


def test_every_name_of_a_trial_is_one_that_events_take() -> None:
    """Words as the event's pattern has them."""
    for trial in (*trials_roles.without_rights(), *trials_roles.without_roles()):
        assert observation(trial, at_ms=1, by="alice") is not None


def test_without_a_stack_it_says_so(cli: Callable[..., tuple[int, str, str]]) -> None:
    """Exit 3: nothing was tried."""
    code, _, said = cli("evidence", "check")
    assert (code, "ratchet up" in said) == (3, True)
