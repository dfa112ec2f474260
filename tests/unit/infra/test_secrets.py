"""The local secret file: private, made once, said to be for a first look only."""

import json
import stat
from pathlib import Path

import pytest
from hvac.exceptions import Forbidden, InvalidRequest

from infra.clock import ManualClock
from infra.engine import Blameless
from infra.provider_keys import ProviderKeys
from infra.secrets import LOCAL_WARNING, LocalSecrets, VaultSecrets, open_secrets, verify_signature
from infra.settings import Settings
from schemas.errors import Refused, Unavailable


async def test_made_at_first_use_and_kept(tmp_path: Path) -> None:
    """The first opening makes the file with mode 0600; the second has the same keys."""
    file = tmp_path / "state" / "secrets.json"
    first = LocalSecrets.open(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    second = LocalSecrets.open(file)
    assert await first.commitment_key("t") == await second.commitment_key("t")
    assert await first.public_key("notary") == await second.public_key("notary")
    assert await first.commitment_key("t") != await first.commitment_key("u")


def test_readable_by_others_is_refused(tmp_path: Path) -> None:
    """A file that others may read is refused with what to do, and is left as it is."""
    file = tmp_path / "secrets.json"
    LocalSecrets.open(file)
    file.chmod(0o640)
    before = file.read_bytes()
    with pytest.raises(Refused, match="chmod 600"):
        LocalSecrets.open(file)
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    "content", ["", "{", '{"commitment": "xx", "keys": {}, "secrets": {}}', '{"commitment": 5}', "[]"]
)
def test_damaged_file_is_refused(tmp_path: Path, content: str) -> None:
    """What is not a secrets file is refused, none of it said, nothing overwritten."""
    file = tmp_path / "secrets.json"
    file.write_text(content)
    file.chmod(0o600)
    with pytest.raises(Refused, match="not a secrets file of ours") as refused:
        LocalSecrets.open(file)
    assert refused.value.__cause__ is None
    assert file.read_text() == content


async def test_secrets_are_not_in_repr(tmp_path: Path) -> None:
    """The repr names the file and nothing that is in it."""
    file = tmp_path / "secrets.json"
    source = LocalSecrets.open(file)
    held = json.loads(file.read_bytes())
    assert held["commitment"] not in repr(source)
    assert all(seed not in repr(source) for seed in held["keys"].values())


async def test_what_another_process_has_changed_is_seen(tmp_path: Path) -> None:
    """What one process swaps in is known to another without a restart, and lost by none; the file stays its owner's."""
    file = tmp_path / "secrets.json"
    one, two = LocalSecrets.open(file), LocalSecrets.open(file)
    assert await one.swap("principals", {}, {"a": "1"})
    assert not await two.swap("principals", {}, {"b": "2"})
    assert await two.swap("principals", {"a": "1"}, {"a": "1", "b": "2"})
    assert await one.get("principals") == {"a": "1", "b": "2"}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_every_start_says_first_look_only(tmp_path: Path) -> None:
    """Whoever opens the local source hears, each time, that it is not for production."""
    heard: list[str] = []
    for _ in range(2):
        source = await open_secrets(Settings(state_dir=tmp_path), heard.append)
        assert "first look" in source.status().detail
        await source.close()
    assert heard == [LOCAL_WARNING, LOCAL_WARNING]


async def test_signature_of_another_body_does_not_verify(tmp_path: Path) -> None:
    """A signature fits its body and its key only; a key of the wrong size is no key."""
    source = LocalSecrets.open(tmp_path / "secrets.json")
    signature = await source.sign("notary", b"body")
    public = await source.public_key("notary")
    assert verify_signature(public, b"body", signature)
    assert not verify_signature(public, b"bodY", signature)
    assert not verify_signature(await source.public_key("adapters"), b"body", signature)
    assert not verify_signature(b"short", b"body", signature)


async def test_vault_without_credentials_is_refused() -> None:
    """A process that needs Vault and was given no AppRole is told which settings are missing, before any call."""
    settings = Settings(secrets="vault", vault_addr="http://127.0.0.1:9")
    with pytest.raises(Refused, match="RATCHET_VAULT_WRAPPED_SECRET_ID"):
        await open_secrets(settings, lambda _: None)


class EndingToken:
    """Vault's side of a token that ends while it is asked about: refused at a path, found again, and then gone."""

    url = "http://vault.invalid"

    def __init__(self) -> None:
        self.auth = self.token = self.secrets = self.kv = self.v2 = self

    def read_secret_version(self, **_: object) -> object:
        raise Forbidden("permission denied")

    def renew_self(self) -> object:
        raise InvalidRequest("token not found")


async def test_a_token_that_ends_while_it_is_renewed_is_a_lease_that_has_ended() -> None:
    """Vault says 400 then, not 403: the source is not usable any more, and says why."""
    source = VaultSecrets(EndingToken(), "ratchet", "transit", 60.0, renewable=True, ours=False)
    with pytest.raises(Unavailable, match="no longer knows the token"):
        await source.get("commitment")
    assert not source.status().usable


async def test_a_providers_key_is_read_by_name_and_remembered(tmp_path: Path) -> None:
    """From `providers/NAME`, once a minute, never in a repr; no name is no key; forgotten, it is read anew."""
    source, clock = LocalSecrets.open(tmp_path / "secrets.json"), ManualClock()
    keys = ProviderKeys(source, clock)
    assert (await keys.get("")).get_secret_value() == ""
    with pytest.raises(Refused, match="providers/openai is not there"):
        await keys.get("openai")
    for key in ("sk-one", "sk-two", "sk-three"):
        await source.put("providers/openai", {"key": key})
        if key == "sk-two":
            assert (await keys.get("openai")).get_secret_value() == "sk-one"
            await clock.advance(60)
        if key == "sk-three":
            keys.forget("openai")
        held = await keys.get("openai")
        assert held.get_secret_value() == key
        assert key not in repr(held) + str(held) + repr(keys)


async def test_a_key_store_that_is_away_blames_no_provider() -> None:
    """Vault away: the call fails, and no breaker counts it."""
    source = VaultSecrets(EndingToken(), "ratchet", "transit", 60.0, renewable=True, ours=False)
    with pytest.raises(Blameless, match="cannot be read"):
        await ProviderKeys(source, ManualClock()).get("openai")
