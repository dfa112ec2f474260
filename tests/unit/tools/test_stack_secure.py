"""Whose secured Kafka it is: the stack's own, reached by its authority and its administrator, or somebody else's."""

import json
from pathlib import Path

import pytest

from infra.settings import Settings
from tools.stack.secure import INNER, administration, certificates
from tools.stack.stack import Record, Service, Stack
from tools.stack.tls import ensure_certificates

OWN, INSIDE = "127.0.0.1:9092", "127.0.0.1:9093"


def test_anothers_kafka_over_tls_is_asked_by_the_authority_of_the_settings(
    tmp_path: Path, tls_broker: tuple[str, Path]
) -> None:
    """It answers whom RATCHET_KAFKA_CA lets trust it, and counts as broken for whom another authority is named."""
    where, authority = tls_broker
    state = tmp_path / "state"
    state.mkdir()
    record = Record(tag="t", started_at="now", partitions=1, vault=False, complete=True)
    record.services["kafka"] = Service(name="kafka", kind="external", address=where)
    (state / "stack.json").write_text(record.model_dump_json(), encoding="utf-8")
    settings = Settings(state_dir=state, kafka_bootstrap=where, kafka_security="sasl_ssl", kafka_ca=authority)
    assert Stack(settings).status().broken == []
    other = ensure_certificates(tmp_path / "other").authority
    stranger = Stack(settings.model_copy(update={"kafka_ca": other}))
    assert stranger.status().broken == [f"kafka does not answer at {where}"]


@pytest.mark.parametrize(("bootstrap", "ours"), [(None, True), (OWN, True), ("kafka.example:9092", False)])
def test_the_administrator_is_of_the_stacks_own_kafka_only(tmp_path: Path, bootstrap: str | None, ours: bool) -> None:
    """Who names another Kafka's address does not come in by this stack's certificate."""
    services = {"kafka": {"address": OWN}, INNER: {"address": INSIDE}}
    (tmp_path / "stack.json").write_text(json.dumps({"services": services}), encoding="utf-8")
    found = administration(tmp_path, bootstrap)
    assert (found is not None) == ours
    if found is not None:
        where, security = found
        assert (where, security.certificate) == (INSIDE, certificates(tmp_path) / "administrator.pem")


@pytest.mark.parametrize("services", [{"kafka": {"address": OWN}}, {INNER: {"address": INSIDE}}, {}])
def test_an_open_stack_has_no_administrator(tmp_path: Path, services: dict[str, dict[str, str]]) -> None:
    """Nor has a folder without a stack."""
    assert administration(tmp_path, OWN) is None
    (tmp_path / "stack.json").write_text(json.dumps({"services": services}), encoding="utf-8")
    assert administration(tmp_path) is None
