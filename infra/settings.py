"""Settings: the only reader of the process environment.

A setting is a field of `Settings`: its environment name, reader and meaning stand in one line. `load` collects every bad key
and refuses once, naming each with its value (a secret's value never) and what is accepted.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from schemas.errors import Refused

PREFIX = "RATCHET_"
_FOREIGN = {"KAFKA_BOOTSTRAP": "kafka_bootstrap", "REDIS_URL": "redis_url", "VAULT_ADDR": "vault_addr"}
# Names under our prefix that other programs of this repository read or set: the stack's tag on what it starts, compose's ports.
_RESERVED = {"RATCHET_STACK", "RATCHET_KAFKA_PORT", "RATCHET_REDIS_PORT", "RATCHET_VAULT_PORT"}
# Where programs and libraries lie, the language, the clock's zone, the folder for temporary files.
_ANYBODYS = {"PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR"}

HostPort = Annotated[str, Field(pattern=r"^[^\s:,]+:\d{1,5}(,[^\s:,]+:\d{1,5})*$")]


class Settings(BaseModel):
    """Everything a process takes from its surroundings. Environment name: `RATCHET_` and the field's name in capitals,
    but for KAFKA_BOOTSTRAP, REDIS_URL and VAULT_ADDR, which are everybody's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kafka_bootstrap: HostPort | None = Field(None, description="host:port[,host:port…] of the brokers")
    kafka_security: Literal["plaintext", "sasl_ssl"] = Field(
        "plaintext", description="plaintext (first look only) or sasl_ssl: TLS, and a password proven by SCRAM-SHA-512"
    )
    kafka_ca: Path | None = Field(None, description="a PEM file with the authority of the brokers' certificates")
    kafka_user: str | None = Field(
        None, pattern=r"^[A-Za-z0-9._-]{1,64}$", description="the Kafka user, where it is not named as the agents are"
    )
    kafka_credentials: str = Field(
        "kafka", pattern=r"^[\w/-]+$", description="the folder of the secret store with one secret a user: its password"
    )
    redis_url: str | None = Field(None, pattern=r"^(redis|rediss|unix)://\S+$", description="a redis:// URL")
    vault_addr: str | None = Field(None, pattern=r"^https?://\S+$", description="Vault's http(s) address")

    secrets: Literal["local", "vault"] = Field("local", description="local (a file, first look only) or vault")
    vault_role_id: str | None = Field(None, description="the AppRole's role id")
    vault_wrapped_secret_id: SecretStr | None = Field(
        None, description="a response-wrapped secret id, good for one start of one process"
    )
    vault_issuer: Path | None = Field(
        None, description="a file with a token that issues wrapped secret ids: for training jobs, each of which logs in"
    )
    vault_role: str = Field(
        "ratchet", pattern=r"^[\w-]+$", description="the AppRole that an issuer's secret ids are of"
    )
    vault_token: SecretStr | None = Field(None, description="a token instead of an AppRole: development only")
    vault_ca: Path | None = Field(None, description="a PEM file with the authority of Vault's certificate")
    vault_mount: str = Field("ratchet", pattern=r"^[\w-]+$", description="the KV v2 mount that holds our secrets")
    vault_transit: str = Field("transit", pattern=r"^[\w-]+$", description="the transit mount that signs")

    ray_address: str | None = Field(None, pattern=r"^\S+$", description="Ray's host:port, or local for none shared")
    ray_token_file: Path | None = Field(None, description="the file with the token of the stack's Ray head")
    engine: Literal["vllm", "scripted"] = Field("vllm", description="vllm, or scripted (tests and load only)")
    max_replicas: int = Field(
        1, ge=1, le=1000, description="engines in Ray at most, 1: what the estimator wants is advice only"
    )

    provider_ca: Path | None = Field(
        None, description="a PEM file with the authority of providers' certificates, instead of the machine's"
    )
    provider_http: str = Field(
        "",
        pattern=r"^$|^[\w.-]+(,[\w.-]+)*$",
        description="hosts, separated by commas, that providers may have without TLS",
    )

    witnesses: Path | None = Field(
        None,
        description="a policy file (tlog-policy) with the witnesses of our log: witness … URL, group and quorum lines",
    )
    witness_name: str | None = Field(
        None,
        pattern=r"^[^\s+]+$",
        description="a witness's key name, without spaces or +; of a local key it begins dev.",
    )
    witness_listen: str = Field(
        "127.0.0.1:8410",
        pattern=r"^[^\s:,]+:\d{1,5}$",
        description="host:port that a witness listens on, port 0 for any free one",
    )
    witness_logs: Path | None = Field(
        None,
        description="a policy file (tlog-policy) whose log lines are the logs that a witness takes; read again when it changes",
    )
    witness_dir: Path | None = Field(
        None, description="the folder of a witness's own store; state_dir/witness unless set"
    )

    payload_days: int = Field(
        31, ge=1, le=3650, description="days for which sealed payloads lie beside the evidence log"
    )
    state_dir: Path = Field(Path(".ratchet"), description="the folder that holds local state")
    cache_dir: Path = Field(Path("~/.cache/ratchet"), description="the user's folder for downloaded and built servers")
    instance: str = Field(
        "local", pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="this deployment's name: a-z, 0-9, -"
    )
    ordinal: int = Field(0, ge=0, lt=10_000, description="this process among its equals, from 0; start each once")
    partitions: int = Field(4, ge=1, le=1024, description="partitions of every topic, 1 to 1024")
    replication: int = Field(1, ge=1, le=7, description="replicas of every topic, 1 to 7")

    metrics_port: int = Field(0, ge=0, le=65535, description="Prometheus port, 0 for any free one")
    metrics_host: str = Field("127.0.0.1", description="the address that the metrics port is bound to")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="debug, info, warning or error")
    redis_timeout_ms: float = Field(
        50.0, gt=0, le=60_000, description="bound of one Redis call in milliseconds, above 0"
    )

    @property
    def production(self) -> bool:
        """Whether this is meant in earnest: secrets come from a real store. No stand-in answers then."""
        return self.secrets != "local"

    def resolved(self) -> "Settings":
        """The same with `~` and relative folders made absolute, so that a child process in another folder agrees."""
        paths = (
            "state_dir",
            "cache_dir",
            "kafka_ca",
            "provider_ca",
            "vault_issuer",
            "witnesses",
            "witness_logs",
            "witness_dir",
        )
        held: dict[str, Path | None] = {name: getattr(self, name) for name in paths}
        return self.model_copy(update={name: path and path.expanduser().resolve() for name, path in held.items()})

    def to_env(self) -> dict[str, str]:
        """What differs from the defaults as environment variables, secrets included: for a child process, never for a log."""
        found: dict[str, str] = {}
        for field in sorted(self.model_fields_set):
            value = getattr(self, field)
            if value is not None:
                found[env_name(field)] = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        return found


def env_name(field: str) -> str:
    """The environment variable that a field is read from."""
    return next((name for name, known in _FOREIGN.items() if known == field), PREFIX + field.upper())


def process_environment() -> dict[str, str]:
    """A copy of this process's environment: what a child process inherits."""
    return dict(os.environ)  # noqa: TID251  this module is the reader


def bare_environment(*also: str) -> dict[str, str]:
    """What any program needs of this process's environment, and the variables named: no setting, nobody's credentials."""
    return {name: value for name, value in process_environment().items() if name in {*_ANYBODYS, *also}}


def ray_environment(token_file: Path) -> dict[str, str]:
    """What a process needs around it to join the stack's Ray head: set before `import ray`, which reads it.

    The first name misleads: at 0 a node and its clients keep to 127.0.0.1; else Ray replaces that by the machine's outer
    address, listens on all of them, and a client waits for minutes. Token: whoever joins a head runs code as its user.
    """
    return {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file),
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def prepare_ray(settings: "Settings") -> None:
    """Make this process able to join the stack's Ray head. Nothing to do, and nothing done, with a Ray of the user's own."""
    if settings.ray_token_file is not None:
        os.environ.update(ray_environment(settings.ray_token_file))  # noqa: TID251  this module touches the environment


def load(environ: Mapping[str, str] | None = None, file: Path | None = None) -> Settings:
    """Read the settings: defaults, then `file` (lines `NAME=value`, as `ratchet up` leaves it), then the environment.

    Raises `Refused` once, naming every bad key. An unknown `RATCHET_` name is bad too: it is a setting that would not work.
    """
    problems: list[str] = []
    merged = _from_file(file, problems) if file is not None else {}
    merged |= {k: v for k, v in (process_environment() if environ is None else environ).items() if _ours(k)}
    values: dict[str, str] = {}
    for name, value in merged.items():
        field = _FOREIGN.get(name, name.removeprefix(PREFIX).lower())
        if field not in Settings.model_fields or env_name(field) != name:
            problems.append(f"{name}: no such setting; known are {', '.join(_known())}")
        elif value != "":  # an empty variable is an unset one, as in most shells' scripts
            values[field] = value
    settings: Settings | None = None
    try:
        settings = Settings.model_validate(values)
    except ValidationError as fault:
        for error in fault.errors(include_url=False, include_context=False, include_input=False):
            field = str(error["loc"][0])
            problems.append(
                f"{env_name(field)}: {_shown(field, values[field])} is not accepted, give {_accepted(field)}"
            )
    if settings is not None:
        problems += _together(settings)
    if problems or settings is None:
        raise Refused("settings refused:\n" + "\n".join(f"  {p}" for p in sorted(problems)), kind="settings")
    return settings


def _together(settings: Settings) -> list[str]:
    """What no single field can say. Credentials are asked for where secrets are opened: a command that needs none has none."""
    problems: list[str] = []
    if settings.secrets == "vault" and settings.vault_addr is None:
        problems.append("VAULT_ADDR: missing, RATCHET_SECRETS=vault needs it")
    if settings.kafka_security == "sasl_ssl" and settings.kafka_ca is None:
        problems.append("RATCHET_KAFKA_CA: missing, RATCHET_KAFKA_SECURITY=sasl_ssl needs it")
    if settings.kafka_security == "plaintext" and settings.kafka_ca is not None:
        problems.append("RATCHET_KAFKA_CA: of no use in the clear; set RATCHET_KAFKA_SECURITY=sasl_ssl, or unset it")
    return problems


def _from_file(file: Path, problems: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as fault:
        raise Refused(f"settings file {file} cannot be read: {fault.strerror}", kind="settings") from fault
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, equals, value = text.partition("=")
        if not equals or not _ours(name.strip()):
            problems.append(f"{file}:{number}: not a line NAME=value with one of {', '.join(_known())}")
            continue
        found[name.strip()] = value.strip()
    return found


def _ours(name: str) -> bool:
    return name in _FOREIGN or (name.startswith(PREFIX) and name not in _RESERVED)


def _known() -> list[str]:
    return [env_name(field) for field in Settings.model_fields]


def _secret(field: str) -> bool:
    return "SecretStr" in repr(Settings.model_fields[field].annotation)


def _shown(field: str, value: str) -> str:
    return "its value (a secret, not shown)" if _secret(field) else repr(value)


def _accepted(field: str) -> str:
    return Settings.model_fields[field].description or field
