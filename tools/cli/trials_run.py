"""The trials of `ratchet evidence check`, made on the stack that the settings name."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from agents.evidence.snapshot import Snapshot
from infra import keys
from infra.settings import Settings
from schemas.compliance import PolicyGate
from schemas.errors import Refused, Unavailable
from schemas.principal import Principal
from schemas.topics import BY_NAME, plans
from streams.kafka import KafkaBroker
from streams.port import Broker, BrokerError
from streams.security import Security
from tools.access import principals
from tools.cli import submit, trials_access, trials_config, trials_roles
from tools.cli.bus import Bus, now_ms
from tools.cli.evidence import LOG
from tools.cli.place import open_broker, open_bus
from tools.cli.trials import Kind, Trial
from tools.doctor import run_checks
from tools.stack import AGENT_GROUPS
from tools.stack.roles import ROLES, SIGNING_KEYS
from tools.stack.secure import own_vault
from tools.stack.vault import VaultServer, call
from tools.voice import open_store

if TYPE_CHECKING:
    from infra.secrets import LocalSecrets, VaultSecrets

PATIENCE_S = 20.0  # until the router has looked at a request
NO_ROUTE = "evidence-check"  # nobody's route: a request that is taken though it should not be reaches no model
Say = Callable[[str], None]


class Trials:
    """Of one stack. Raises `Unavailable` where none is named."""

    def __init__(self, found: Settings, most_days: int) -> None:
        if found.kafka_bootstrap is None:
            raise Unavailable("no stack runs here and KAFKA_BOOTSTRAP is not set: `ratchet up` starts one")
        self.settings, self.most_days, self.bootstrap = found, most_days, found.kafka_bootstrap
        self.over_tls = found.kafka_security != "plaintext"
        self.users = {user for user, works in principals(AGENT_GROUPS).items() if works}

    async def all(self, say: Say) -> list[Trial]:
        """Every one, in the order in which they are told."""
        say("trying the work of other users and roles")
        found = [*await self.kafka_roles(), *await asyncio.to_thread(self.vault_roles)]
        say("trying connections")
        found += await asyncio.to_thread(trials_access.transport, self.bootstrap, self.settings.kafka_ca)
        say("trying to speak as somebody else, and as nobody")
        found += await self.principals()
        say("reading settings")
        return found + await self.configured()

    # -- roles ---------------------------------------------------------------------------------------------------------

    async def kafka_roles(self) -> Sequence[Trial]:
        if not self.over_tls:
            return trials_roles.without_rights()
        rows = [row for row in trials_roles.KAFKA if row.user in self.users]
        return await asyncio.gather(*(trials_roles.kafka_role(row, partial(self._as, row.user)) for row in rows))

    async def _as(self, user: str) -> Broker:
        return await open_broker(self.settings, user=user)

    def vault_roles(self) -> Sequence[Trial]:
        if self.settings.secrets == "local":
            return trials_roles.without_roles()
        rows = [row for row in trials_roles.VAULTED if row.role in ROLES]
        server = own_vault(self.settings)
        if server is None:
            words = "only of the stack's own Vault we have what logs in as its roles"
            return [Trial("role", row.what, None, words, trials_roles.VAULT) for row in rows]
        tokens: dict[str, str] = {}
        try:
            return [self._vault_role(server, tokens, row) for row in rows]
        finally:
            for token in tokens.values():
                server.call("POST", "auth/token/revoke", {"token": token})

    def _vault_role(self, server: VaultServer, tokens: dict[str, str], row: trials_roles.Sealed) -> Trial:
        if row.role not in tokens:
            tokens[row.role] = server.login(row.role)
        return trials_roles.vault_role(
            row, lambda one: call(server.addr, one.method, one.path, one.body, token=tokens[one.role])
        )

    # -- principals ----------------------------------------------------------------------------------------------------

    async def principals(self) -> list[Trial]:
        found = [trials_access.own_users(self.settings.kafka_user, over_tls=self.over_tls)]
        if self.over_tls:
            found += [await self._passwords(), await self._wrong_password()]
        known = await self._known()
        if known is None:
            words = "the principals' keys are in a store that we may not read"
            return [*found, Trial("principal", "principal-keys-differ", None, words)]
        found.append(trials_access.keys_differ(known))
        if not any(row.keys for row in known.values()):
            return [*found, trials_access.without_proof("nobody has a key")]
        return [*found, await self._without_proof()]

    async def _passwords(self) -> Trial:
        folder = self.settings.kafka_credentials

        async def compared(source: "LocalSecrets | VaultSecrets") -> Trial:
            async def password(user: str) -> str | None:
                return (await source.get(f"{folder}/{user}")).get("password")

            return await trials_access.passwords_differ(sorted(self.users), password)

        return await self._in_store("principal", "kafka-passwords-differ", compared)

    async def _wrong_password(self) -> Trial:
        ca = self.settings.kafka_ca
        return await trials_access.wrong_password(
            "operator", lambda word: KafkaBroker(self.bootstrap, Security("sasl_ssl", ca, "operator", word))
        )

    async def _without_proof(self) -> Trial:
        """A request with no proof, on a route that nobody has; what became of it."""
        nonce = f"check-{secrets.token_hex(6)}"
        given = submit.Defaults(NO_ROUTE, None, None, None, nonce, now_ms())
        line = submit.prepare(1, b'{"text": "a trial without a proof"}', given)
        watch = submit.Watch([line])
        async with open_bus(self.settings, user="upstream") as bus:
            wanted = [submit.REQUESTS.full, submit.REQUESTS.dlq, submit.ANSWERS.full]
            followed = bus.follow(await bus.ends(wanted))
            await bus.publish([(submit.REQUESTS.full, line.record)])
            try:
                async with asyncio.timeout(PATIENCE_S):
                    while watch.open():
                        if (record := await anext(followed)) is not None:
                            watch.take(record)
            except TimeoutError:
                return trials_access.without_proof("")
            finally:
                await followed.aclose()
        letter: Mapping[str, Any] = line.row.get("dead_letter") or line.row["data"]
        return trials_access.without_proof(str(letter.get("kind") or line.outcome))

    async def _known(self) -> Mapping[str, Principal] | None:
        try:
            async with open_store(self.settings) as source:
                return {} if source is None else await keys.principals(source)
        except Unavailable:
            return None

    async def _in_store(
        self, kind: Kind, what: str, act: "Callable[[LocalSecrets | VaultSecrets], Awaitable[Trial]]"
    ) -> Trial:
        try:
            async with open_store(self.settings) as source:
                return (
                    await act(source) if source is not None else Trial(kind, what, None, "there is no secret store yet")
                )
        except (Refused, Unavailable) as fault:
            return Trial(kind, what, None, f"could not be tried: {fault}")

    # -- settings ------------------------------------------------------------------------------------------------------

    async def configured(self) -> list[Trial]:
        tried = self.settings
        found = [*trials_config.stores(tried), trials_config.files(tried.state_dir)]
        found += trials_config.doctored(await asyncio.to_thread(run_checks))
        tenants: dict[str, int] = {}
        try:
            async with open_bus(tried) as bus:
                found += trials_config.topics(await bus.admin.configs([plan.full for plan in plans()]))
                tenants = await _tenants(bus)
        except (Refused, Unavailable, BrokerError) as fault:
            found.append(Trial("config", "topic-retention", None, f"could not be read: {fault}"))
        found += trials_config.log_kept(*self._log(), tenants)
        if (known := await self._known()) is not None:
            found.append(trials_config.principal_ages(known, now_ms=now_ms(), most_days=self.most_days))
        if tried.secrets == "vault":
            found += await self._transit(tenants)
        return found

    def _log(self) -> tuple[bool, int]:
        """Whether the first entry is there, and how many there are."""
        try:
            log = Snapshot.open(self.settings.state_dir / LOG)
            return bool(log.entry(0)), log.size
        except (Refused, Unavailable):
            return False, 0

    async def _transit(self, tenants: Mapping[str, int]) -> list[Trial]:
        from infra.secrets import VaultSecrets  # heavy: clients of Vault

        names = [*SIGNING_KEYS, *(f"kek-{tenant}" for tenant in sorted({"default", *tenants}))]
        found: dict[str, Mapping[str, Any]] = {}
        try:
            async with open_store(self.settings) as source:
                if isinstance(source, VaultSecrets):
                    for name in names:
                        path = f"{self.settings.vault_transit}/keys/{name}"
                        reply: Any = await asyncio.to_thread(source.client.read, path)
                        if reply is not None:
                            found[name] = reply["data"]
        except (Refused, Unavailable) as fault:
            return [Trial("config", "key-age-transit", None, f"could not be read: {fault}")]
        return list(
            trials_config.transit_ages(
                found,
                {name: made_s(row) for name, row in found.items()},
                now_s=now_ms() / 1000,
                most_days=self.most_days,
            )
        )


def made_s(row: Mapping[str, Any]) -> float:
    """When a transit key's latest version was made: Vault tells seconds, or for keys with a public half an object with a time."""
    latest: Any = row["keys"][str(row["latest_version"])]
    return float(latest) if isinstance(latest, int) else datetime.fromisoformat(latest["creation_time"]).timestamp()


async def _tenants(bus: Bus) -> dict[str, int]:
    """The tenants that have a configuration, and for how many days each wants records kept."""
    topic = BY_NAME["policies"].full
    found: dict[str, int] = {}
    for record in await bus.read(await bus.starts([topic])):
        key = (record.key or b"").decode("utf-8", "replace")
        if key.startswith("gate/") and record.value is not None:
            found[key.removeprefix("gate/")] = PolicyGate.model_validate_json(record.value).settings.retention_days
    return found
