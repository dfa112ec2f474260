"""Settings: what is read, what is refused, all at once and without saying a secret."""

from pathlib import Path

import pytest

from infra.settings import Settings, env_name, load, ray_environment
from schemas.errors import Refused


def test_defaults_need_nothing() -> None:
    """An empty environment gives a usable local setting."""
    settings = load({})
    assert (settings.partitions, settings.engine, settings.secrets) == (4, "vllm", "local")
    assert settings.state_dir == Path(".ratchet")


def test_names_are_prefix_and_field_but_for_three() -> None:
    """KAFKA_BOOTSTRAP, REDIS_URL and VAULT_ADDR are read as everybody writes them, the rest under our prefix."""
    settings = load(
        {
            "KAFKA_BOOTSTRAP": "a:1,b:2",
            "REDIS_URL": "redis://h:1/0",
            "VAULT_ADDR": "http://v:8200",
            "RATCHET_ORDINAL": "3",
        }
    )
    assert settings.kafka_bootstrap == "a:1,b:2"
    assert settings.redis_url == "redis://h:1/0"
    assert settings.vault_addr == "http://v:8200"
    assert settings.ordinal == 3
    assert env_name("kafka_bootstrap") == "KAFKA_BOOTSTRAP"
    assert env_name("log_level") == "RATCHET_LOG_LEVEL"


def test_all_bad_keys_at_once() -> None:
    """One refusal names every bad key with its value and what is accepted."""
    with pytest.raises(Refused) as refused:
        load(
            {"RATCHET_PARTITIONS": "many", "RATCHET_ENGINE": "magic", "KAFKA_BOOTSTRAP": "nowhere", "RATCHET_TYPO": "1"}
        )
    said = str(refused.value)
    for part in (
        "RATCHET_PARTITIONS: 'many'",
        "1 to 1024",
        "RATCHET_ENGINE: 'magic'",
        "KAFKA_BOOTSTRAP: 'nowhere'",
        "RATCHET_TYPO: no such setting",
    ):
        assert part in said


def test_secrets_are_never_said() -> None:
    """Neither a repr nor a refusal holds a secret's value."""
    settings = load({"RATCHET_VAULT_TOKEN": "hvs.very-secret", "RATCHET_VAULT_WRAPPED_SECRET_ID": "hvs.wrapped"})
    assert "very-secret" not in repr(settings)
    assert "wrapped" not in repr(settings).replace("vault_wrapped_secret_id", "")


def test_kafka_over_tls_needs_its_authority() -> None:
    """The transport is in the clear by default; asked for TLS without an authority, the variable is named."""
    assert load({}).kafka_security == "plaintext"
    with pytest.raises(Refused, match="RATCHET_KAFKA_CA: missing"):
        load({"RATCHET_KAFKA_SECURITY": "sasl_ssl"})
    with pytest.raises(Refused, match="RATCHET_KAFKA_CA: of no use in the clear"):
        load({"RATCHET_KAFKA_CA": "ca.pem"})
    with pytest.raises(Refused, match="RATCHET_KAFKA_SECURITY: 'ssl' is not accepted"):
        load({"RATCHET_KAFKA_SECURITY": "ssl"})
    assert load({"RATCHET_KAFKA_SECURITY": "sasl_ssl", "RATCHET_KAFKA_CA": "ca.pem"}).resolved().kafka_ca == (
        Path.cwd() / "ca.pem"
    )


def test_vault_needs_its_address() -> None:
    """Secrets from Vault without an address are refused; credentials are asked for where the secrets are opened."""
    with pytest.raises(Refused, match="VAULT_ADDR: missing"):
        load({"RATCHET_SECRETS": "vault"})
    assert load({"RATCHET_SECRETS": "vault", "VAULT_ADDR": "http://v:1"}).vault_role_id is None


def test_what_providers_may_and_when_it_is_production() -> None:
    """Hosts without TLS by name only; another authority as a file; in earnest where secrets come from a real store."""
    settings = load({"RATCHET_PROVIDER_HTTP": "gpu-1,10.0.0.7", "RATCHET_PROVIDER_CA": "ca.pem"})
    assert settings.provider_http == "gpu-1,10.0.0.7"
    assert settings.resolved().provider_ca == Path.cwd() / "ca.pem"
    for wrong in ("http://gpu-1", "gpu-1 gpu-2", "gpu-1,", "*"):
        with pytest.raises(Refused, match="RATCHET_PROVIDER_HTTP"):
            load({"RATCHET_PROVIDER_HTTP": wrong})
    assert not load({}).production
    assert load({"RATCHET_SECRETS": "vault", "VAULT_ADDR": "http://v:1"}).production


def test_file_first_then_environment(tmp_path: Path) -> None:
    """The environment wins over the file, comments and blank lines say nothing."""
    file = tmp_path / "env"
    file.write_text("# left by up\n\nKAFKA_BOOTSTRAP=a:1\nRATCHET_PARTITIONS=8\n")
    settings = load({"RATCHET_PARTITIONS": "6"}, file)
    assert (settings.kafka_bootstrap, settings.partitions) == ("a:1", 6)


def test_bad_file_lines_are_named(tmp_path: Path) -> None:
    """A line that is no setting is refused with file and line number."""
    file = tmp_path / "env"
    file.write_text("KAFKA_BOOTSTRAP=a:1\nHOME=/\nnonsense\n")
    with pytest.raises(Refused) as refused:
        load({}, file)
    assert f"{file}:2" in str(refused.value)
    assert f"{file}:3" in str(refused.value)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    """A file that is not there is a refusal, not a default."""
    with pytest.raises(Refused, match="cannot be read"):
        load({}, tmp_path / "none")


def test_empty_is_unset_and_foreign_names_are_ignored() -> None:
    """An empty variable keeps the default; names that are not ours, and the stack's tag, are not looked at."""
    assert load({"RATCHET_PARTITIONS": "", "PATH": "/bin", "RATCHET_STACK": "abc"}).partitions == 4


def test_to_env_round_trip() -> None:
    """What `to_env` gives a child loads to the same settings, secrets included."""
    settings = Settings.model_validate(
        {
            "kafka_bootstrap": "a:1",
            "partitions": 7,
            "vault_token": "t",
            "state_dir": Path("/x"),
            "ray_token_file": Path("/t"),
        }
    )
    assert load(settings.to_env()) == settings


def test_ray_environment_names_the_token_by_file() -> None:
    """Ray's clients are given the token's file, never the token."""
    assert ray_environment(Path("/x/ray-token"))["RAY_AUTH_TOKEN_PATH"] == "/x/ray-token"


def test_witness_settings() -> None:
    """Paths of a witness and of the log's witnesses become absolute; bad addresses and names are all named at once."""
    assert (load({}).witnesses, load({}).witness_logs, load({}).witness_dir) == (None, None, None)
    settings = load(
        {
            "RATCHET_WITNESSES": "witnesses.policy",
            "RATCHET_WITNESS_NAME": "witness.example/1",
            "RATCHET_WITNESS_LISTEN": "0.0.0.0:0",
            "RATCHET_WITNESS_LOGS": "~/logs.policy",
            "RATCHET_WITNESS_DIR": "own",
        }
    ).resolved()
    assert (settings.witness_name, settings.witness_listen) == ("witness.example/1", "0.0.0.0:0")
    assert settings.witnesses == Path.cwd() / "witnesses.policy"
    assert settings.witness_logs == Path.home() / "logs.policy"
    assert settings.witness_dir == Path.cwd() / "own"
    assert load(settings.to_env()) == settings
    with pytest.raises(Refused) as refused:
        load({"RATCHET_WITNESS_LISTEN": "8410", "RATCHET_WITNESS_NAME": "two words"})
    assert "RATCHET_WITNESS_LISTEN: '8410'" in str(refused.value)
    assert "RATCHET_WITNESS_NAME: 'two words'" in str(refused.value)
