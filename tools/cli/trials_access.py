"""Connections and principals, tried: who comes in the clear, under an unknown authority, with a wrong password or without a proof
must be refused, and no two principals may have one secret.

Secrets are compared by digests with a salt of the run, and neither is shown.
"""

import hashlib
import hmac
import secrets
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from schemas.errors import Refused, Unavailable
from schemas.principal import Principal
from streams.port import Broker, BrokerError, ShutOut
from tools.cli.trials import Trial
from tools.cli.trials_roles import SECURE
from tools.stack.kafka import live_brokers
from tools.stack.tls import ensure_certificates

OTHERS = "`ratchet acl apply --rotate USER` gives a user another password"
ROTATE = "`ratchet principal rotate NAME` gives a principal another key"
ADD = "`ratchet principal add NAME --role ROLE`: from the first key on, everything must be proven"


def transport(bootstrap: str, ca: Path | None) -> tuple[Trial, Trial]:
    """One connection in the clear, and one that trusts another authority alone."""
    clear, unknown = "plaintext-connection", "unknown-authority"
    answers = live_brokers(bootstrap) > 0
    in_clear = Trial(
        "transport",
        clear,
        not answers,
        "a broker answers in the clear" if answers else "nobody answers in the clear",
        SECURE,
    )
    if ca is None:
        return in_clear, Trial(
            "transport", unknown, False, "no connection is over TLS, so no authority is asked", SECURE
        )
    if live_brokers(bootstrap, ca) == 0:  # else everything would pass while the broker is away
        words = "no broker answers under the authority in RATCHET_KAFKA_CA"
        return Trial("transport", clear, None, words, SECURE), Trial("transport", unknown, None, words, SECURE)
    with TemporaryDirectory(prefix="ratchet-authority-") as folder:
        other = ensure_certificates(Path(folder) / "tls").authority
        taken = live_brokers(bootstrap, other) > 0
    said = (
        "the broker was trusted under an authority that nobody knows"
        if taken
        else "an unknown authority is not trusted"
    )
    return in_clear, Trial("transport", unknown, not taken, said, SECURE)


async def wrong_password(user: str, opened: Callable[[str], Broker]) -> Trial:
    """The user with a password that is not its own must be shut out."""
    what = "wrong-password"
    admin = opened(secrets.token_urlsafe(32)).admin()
    try:
        await admin.start()
    except ShutOut:
        return Trial("principal", what, True, f"Kafka user {user} with another password was shut out")
    except BrokerError as fault:
        return Trial("principal", what, None, f"could not be tried: {fault}", SECURE)
    finally:
        await admin.stop()
    return Trial(
        "principal", what, False, f"Kafka user {user} came in with a password that was drawn at random", SECURE
    )


async def passwords_differ(users: Sequence[str], password: Callable[[str], Awaitable[str | None]]) -> Trial:
    """No two Kafka users have one password. Who has none cannot come in at all."""
    what = "kafka-passwords-differ"
    try:
        held = {user: found for user in users if (found := await password(user)) is not None}
    except (Refused, Unavailable) as fault:
        return Trial("principal", what, None, f"could not be tried: {fault}", OTHERS)
    if shared := _shared(held):
        return Trial("principal", what, False, f"one password for {_words(shared)}", OTHERS)
    if not held:
        return Trial("principal", what, False, "no user has a password of its own", SECURE)
    return Trial("principal", what, True, f"{len(held)} users, {len(held)} passwords")


def keys_differ(known: Mapping[str, Principal]) -> Trial:
    """No key of a principal is another's too. What is compared are the keys' published commitments."""
    what = "principal-keys-differ"
    if not any(row.keys for row in known.values()):
        return Trial("principal", what, False, "no principal has a key: nothing that is sent is proven", ADD)
    owners: dict[str, set[str]] = defaultdict(set)
    for name, row in known.items():
        for term in row.keys.values():
            owners[term.commitment].add(name)
    shared = [sorted(names) for names in owners.values() if len(names) > 1]
    if shared:
        return Trial("principal", what, False, f"one key for {_words(shared)}", ROTATE)
    return Trial("principal", what, True, f"{len(known)} principals, no key of two")


def own_users(kafka_user: str | None, *, over_tls: bool) -> Trial:
    """Each process comes to Kafka as a user of its own."""
    what = "kafka-user-each"
    if not over_tls:
        return Trial("principal", what, False, "Kafka asks nobody who he is", SECURE)
    if kafka_user is not None:
        words = f"RATCHET_KAFKA_USER={kafka_user} names one user for all processes"
        return Trial("principal", what, False, words, "unset RATCHET_KAFKA_USER")
    return Trial("principal", what, True, "each process is a Kafka user of its own")


def without_proof(kind: str) -> Trial:
    """What became of a request that was sent without a proof: the `kind` of its refusal, "" for none yet, else that it was taken."""
    what = "request-without-proof"
    if not kind:
        return Trial("principal", what, None, "the router has not looked at it: `ratchet status` says what runs")
    if kind == "unproven":
        return Trial("principal", what, True, "a request without a proof was refused for it")
    return Trial("principal", what, False, f"a request without a proof was taken ({kind})", ADD)


def _shared(held: Mapping[str, str]) -> list[list[str]]:
    """Whose secret is one and the same."""
    salt = secrets.token_bytes(32)
    owners: dict[bytes, list[str]] = defaultdict(list)
    for name, secret in held.items():
        owners[hmac.digest(salt, secret.encode(), hashlib.sha256)].append(name)
    return [sorted(names) for names in owners.values() if len(names) > 1]


def _words(groups: Sequence[Sequence[str]]) -> str:
    return "; ".join(" and ".join(names) for names in groups)
