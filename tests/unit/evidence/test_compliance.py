"""The compliance Fold: a tenant's configuration becomes the gate's policy."""

import pytest
from folding import Folding

from agents.evidence.compliance import Compliance
from schemas.compliance import CommandTenant, PolicyGate
from schemas.gate import GateTenant

NOW = 1_800_000_000_000


def configure(tenant: str = "bank", of: str | None = None, **settings: object) -> CommandTenant:
    whole = GateTenant.model_validate({"tenant": of or tenant, **settings})
    return CommandTenant(tenant=tenant, at_ms=NOW, operator="ana", settings=whole)


def test_a_tenants_configuration_becomes_the_gates_policy() -> None:
    """Whole, under `gate/<tenant>`, with a version that counts here, whatever the sender wrote; by whom is said."""
    fold = Folding(Compliance())
    (first,) = fold.take(configure(purposes={"support": ("contract",)}, version=7))
    (second,) = fold.take(configure(hipaa=True))
    assert isinstance(first, PolicyGate)
    assert isinstance(second, PolicyGate)
    assert (first.event_key(), first.version, first.settings.version, first.author) == ("gate/bank", 1, 1, "ana")
    assert (second.version, second.settings.version, second.settings.purposes) == (2, 2, {})
    assert fold.take(configure("shop"))[0].event_key() == "gate/shop"


def test_a_command_is_done_once() -> None:
    """The same record sent again is the same command; the same settings by another command are a new version."""
    fold = Folding(Compliance())
    assert len(fold.take(configure(), "one")) == 1
    assert fold.take(configure(), "one") == []
    assert fold.take(configure(), "two")[0].version == 2


@pytest.mark.parametrize(("command", "kind"), [(configure("bank", of="shop"), "wrong-tenant")])
def test_a_command_about_another_tenant_is_a_dead_letter(command: CommandTenant, kind: str) -> None:
    """And nothing changes, neither for the one nor for the other."""
    fold = Folding(Compliance())
    assert fold.take(command) == []
    assert [letter.kind for letter in fold.letters] == [kind]
    assert not fold.cells
