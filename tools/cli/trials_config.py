"""Settings, read where they count: transport, secrets, keys' ages, files, topics, how long the log is kept. Changes nothing."""

import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from infra.settings import Settings
from schemas.principal import Principal
from schemas.topics import BY_NAME, DAY_MS, compacted, full, recorded
from tools.cli.trials import Trial
from tools.cli.trials_roles import SECURE, VAULT
from tools.doctor import Check

DAY_S = 86_400
LEAST_LOG_DAYS = 183  # AI Act, Articles 19(1) and 26(6)
KEYRING = {"max.compaction.lag.ms", "segment.ms", "delete.retention.ms"}
OUTAGE_MS = 31 * DAY_MS  # the longest that a reader may be away
ALTER = "kafka-configs.sh --alter --entity-type topics; `ratchet doctor` names what differs"
_HERE = {"localhost", "127.0.0.1", "::1", ""}
PRIVATE = (
    "env",
    "stack.json",
    "agents.json",
    "secrets.json",
    "ray-token",
    "data/vault/*",
    "data/tls/*",
    "witness/*.json",
)


def stores(settings: Settings) -> Iterator[Trial]:
    """Where secrets come from, and whether what goes over a wire is under TLS."""
    real = settings.secrets != "local"
    said = "secrets come from Vault" if real else "secrets come from a local file: for a first look only"
    yield Trial("config", "secret-store", real, said, VAULT)
    tls = settings.kafka_security != "plaintext"
    said = "agents reach Kafka over TLS alone" if tls else "agents reach Kafka in the clear"
    yield Trial("config", "kafka-tls", tls, said, SECURE)
    yield _reached("redis-transport", settings.redis_url, ("rediss", "unix"))
    if settings.vault_addr is not None:
        yield _reached("vault-transport", settings.vault_addr, ("https",))


def _reached(what: str, url: str | None, safe: tuple[str, ...]) -> Trial:
    """Under TLS, or without leaving this machine."""
    if url is None:
        return Trial("config", what, None, "no address is set: no stack runs here")
    parts = urlsplit(url)
    if parts.scheme in safe:
        return Trial("config", what, True, f"reached by {parts.scheme}")
    here = (parts.hostname or "") in _HERE
    where = "in the clear, and never leaves this machine" if here else "in the clear, to another machine"
    return Trial("config", what, here, where, f"an address with {safe[0]}://")


def doctored(checks: Iterable[Check]) -> Iterator[Trial]:
    """What `ratchet doctor` found of the cluster's topics and of the log's witnesses."""
    names = {"topics": "topics-as-declared", "witness": "log-witnessed"}
    for check in checks:
        if check.name in names:
            yield Trial("config", names[check.name], check.ok, check.detail, check.fix)


def topics(configs: Mapping[str, Mapping[str, str]]) -> Iterator[Trial]:
    """What erasure and completeness stand on: lags and retentions as the brokers have them."""
    unsafe = [
        name
        for name in sorted(compacted() & set(recorded()))
        if _ms(configs, name, "min.compaction.lag.ms") < OUTAGE_MS
    ]
    said = (
        f"may be compacted before the log reads them: {', '.join(unsafe)}" if unsafe else "nothing is compacted unread"
    )
    yield Trial("config", "compaction-lag", not unsafe, said, ALTER)
    keyring, name = configs.get(full("keyring"), {}), full("keyring")
    if "compact" not in keyring.get("cleanup.policy", ""):
        yield Trial("config", "keyring-compaction", False, f"{name} is not compacted: an erased key stays", ALTER)
    else:
        forever = _ms(configs, name, "max.compaction.lag.ms") >= 1 << 62
        said = f"{name} never has to be compacted: an erased key may stay for ever" if forever else _lags(keyring)
        yield Trial("config", "keyring-compaction", not forever, said, ALTER)
    held = _ms(configs, name, "delete.retention.ms")
    said = f"{name} keeps the mark of an erasure for {held / DAY_MS:.0f} days after compaction"
    yield Trial("config", "keyring-tombstones", held >= OUTAGE_MS, said, ALTER)
    short = [
        row.full
        for row in BY_NAME.values()
        if row.kept == "long" and _ms(configs, row.full, "retention.ms") < LEAST_LOG_DAYS * DAY_MS
    ]
    said = (
        f"kept for less than {LEAST_LOG_DAYS} days: {', '.join(short)}"
        if short
        else f"kept for {LEAST_LOG_DAYS} days and more"
    )
    yield Trial("config", "topic-retention", not short, said, ALTER)


def _ms(configs: Mapping[str, Mapping[str, str]], topic: str, name: str) -> int:
    """A setting in milliseconds; below 0, as Kafka writes it, is for ever. What no broker tells counts as none."""
    text = configs.get(topic, {}).get(name, "")
    found = int(text) if text.lstrip("-").isdigit() else 0
    return 1 << 62 if found < 0 else found


def _lags(keyring: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={keyring[name]}" for name in sorted(KEYRING & set(keyring)))


def log_kept(first_entry: bool, size: int, tenants: Mapping[str, int]) -> Iterator[Trial]:
    """The log begins with its first entry, and no tenant asks for less than the law. `tenants`: days of retention."""
    said = f"all {size} entries from the first on" if first_entry else "the first entries are gone"
    yield Trial("config", "log-kept-whole", first_entry, said, "restore them from a backup; docs/evidence.md")
    if tenants:
        short = sorted(name for name, days in tenants.items() if days < LEAST_LOG_DAYS)
        said = (
            f"less than {LEAST_LOG_DAYS} days for {', '.join(short)}"
            if short
            else f"{len(tenants)} tenants, {LEAST_LOG_DAYS} days and more"
        )
        yield Trial(
            "config", "tenant-retention", not short, said, "`ratchet tenant apply FILE` with more retention_days"
        )


def principal_ages(known: Mapping[str, Principal], *, now_ms: int, most_days: int) -> Trial:
    """No key that counts is older than that."""
    ages = {
        name: (now_ms - max(term.not_before_ms for term in row.keys.values())) / DAY_MS
        for name, row in known.items()
        if row.keys
    }
    return _aged("key-age-principals", ages, most_days, "`ratchet principal rotate NAME`")


def transit_ages(
    keys: Mapping[str, Mapping[str, Any]], made_s: Mapping[str, float], *, now_s: float, most_days: int
) -> Iterator[Trial]:
    """Vault's keys: none is old, none can be taken out or deleted. `made_s`: when each one's latest version was made."""
    ages = {name: (now_s - at) / DAY_S for name, at in made_s.items()}
    yield _aged("key-age-transit", ages, most_days, "`vault write -f transit/keys/NAME/rotate`; docs/security.md")
    loose = sorted(name for name, row in keys.items() if row.get("exportable") or row.get("deletion_allowed"))
    said = (
        f"may be taken out or deleted: {', '.join(loose)}"
        if loose
        else f"{len(keys)} keys, none can be taken out or deleted"
    )
    yield Trial(
        "config", "transit-keys-stay", not loose, said, "`vault write transit/keys/NAME/config deletion_allowed=false`"
    )


def _aged(what: str, ages: Mapping[str, float], most_days: int, fix: str) -> Trial:
    if not ages:
        return Trial("config", what, False, "there is none", fix)
    oldest = max(ages, key=lambda name: ages[name])
    said = f"{len(ages)} keys, the oldest, {oldest}, is {max(0.0, ages[oldest]):.0f} days old; at most {most_days}"
    return Trial("config", what, ages[oldest] <= most_days, said, fix)


def files(state_dir: Path) -> Trial:
    """What holds secrets only its owner may read."""
    looked = [
        path for pattern in PRIVATE for path in sorted(state_dir.glob(pattern)) if path.is_file() and _secret(path)
    ]
    open_ = [path for path in looked if stat.S_IMODE(path.stat().st_mode) & 0o077]
    if not looked:
        return Trial("config", "secret-file-modes", None, f"{state_dir} holds no file of a stack")
    said = (
        f"others may read {', '.join(path.name for path in open_)}"
        if open_
        else f"{len(looked)} files, for their owner alone"
    )
    return Trial(
        "config",
        "secret-file-modes",
        not open_,
        said,
        f"chmod 600 them in {state_dir}, and make new keys if they were seen",
    )


def _secret(path: Path) -> bool:
    """Whether a secret is in it. Certificates and the server's own configuration are for everybody."""
    if path.name == "ca.pem" or path.suffix in {".hcl", ".log"}:
        return False
    return path.parent.name != "tls" or b"PRIVATE KEY" in path.read_bytes()
