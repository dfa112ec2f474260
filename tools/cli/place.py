"""Where this stack is: settings, the broker, the state folder. `ratchet up` leaves a file; the environment wins."""

import re
from pathlib import Path

from pydantic import SecretStr

from infra.settings import Settings, load
from schemas.errors import Refused, Unavailable
from schemas.payload import ID_PATTERN
from schemas.principal import Role
from streams.port import Broker
from tools.cli.bus import Bus
from tools.voice import Voice, open_voice

PRIVACY_TOKEN = Path("data") / "vault" / "privacy"  # in the state folder
ENV_FILE = "env"  # in the state folder, lines NAME=value, left by `ratchet up`


def settings() -> Settings:
    """The settings of the stack that runs here, else those of the environment. Raises `Refused`."""
    own = load().resolved()
    file = own.state_dir / ENV_FILE
    return load(file=file).resolved() if file.is_file() else own


def privacy_settings() -> Settings:
    """The same for whoever answers people about themselves: with the token that `ratchet up --vault` made for that alone.

    In a Vault of your own RATCHET_VAULT_TOKEN is one that may do so.
    """
    found = settings()
    token = found.state_dir / PRIVACY_TOKEN
    if found.secrets != "vault" or not token.is_file():
        return found
    return found.model_copy(update={"vault_token": SecretStr(token.read_text(encoding="utf-8").strip())})


async def open_broker(found: Settings | None = None, *, user: str = "operator") -> Broker:
    """The broker of the stack that runs here. `user` is who connects where Kafka asks, unless RATCHET_KAFKA_USER names another."""
    import logging

    from streams.kafka import KafkaBroker
    from tools.stack.secure import open_security

    logging.getLogger("aiokafka").addHandler(logging.NullHandler())  # what matters of it comes as an error of ours
    found = settings() if found is None else found
    return KafkaBroker(_bootstrap(found), await open_security(found, user))


def open_bus(found: Settings | None = None, *, user: str = "operator") -> Bus:
    """The bus of the stack that runs here; `user` as above."""
    settled = settings() if found is None else found
    return Bus(lambda: open_broker(settled, user=user), _bootstrap(settled))


def _bootstrap(found: Settings) -> str:
    if found.kafka_bootstrap is None:
        raise Unavailable("no stack runs here and KAFKA_BOOTSTRAP is not set: `ratchet up` starts one")
    return found.kafka_bootstrap


def state_file(name: str) -> Path:
    """A file in the state folder."""
    return settings().state_dir / name


def operator(given: str | None) -> str:
    """Who acts: what was given, else the user's login name. Raises `Refused` where neither can be a name."""
    name = given if given is not None else _login_name()
    if not re.match(ID_PATTERN, name):
        raise Refused(f"operator {name!r}: accepted: {ID_PATTERN}; give --as NAME", field="operator")
    return name


def _login_name() -> str:
    """Empty where this user has none, as in a container that was given any user id."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


async def voice(role: Role, given: str | None) -> Voice:
    """As whom a command speaks: a principal with its proof; where no key was ever set, the user under the login name."""
    return await open_voice(settings(), role, given, lambda: operator(given))


def an_id(name: str, value: str) -> str:
    """`value` where it can be an id (a route, a request). Raises `Refused` that names it."""
    if not re.match(ID_PATTERN, value):
        raise Refused(f"{name} {value!r} is not accepted: letters, digits, . _ - and at most 64 of them", field=name)
    return value
