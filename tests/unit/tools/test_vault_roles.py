"""Which process logs in to the stack's own Vault as what."""

import re

import pytest

from infra import secrets
from schemas.errors import Refused
from tools.stack.roles import (
    EVIDENCE_ROLE,
    GATE_ROLE,
    ROLE,
    ROLES,
    SHREDDER_ROLE,
    SIGNING_KEYS,
    TRAINING_ROLE,
    WITNESS_ROLE,
    policies,
    role_of,
)
from tools.stack.stack import AGENT_GROUPS


def test_every_process_of_the_stack_has_one_role() -> None:
    """The gate, evidence, the shredder and who starts training jobs have one of their own; no agent has the witness's."""
    found = {group: role_of(group) for group in AGENT_GROUPS}
    assert found[("evidence",)] == EVIDENCE_ROLE
    assert found[("trainer", "jobs", "grader")] == TRAINING_ROLE
    assert found[("router", "trust")] == GATE_ROLE
    assert found[("shredder",)] == SHREDDER_ROLE
    others = {"router", "trust", "evidence", "jobs", "shredder"}
    assert {role for group, role in found.items() if not others & set(group)} == {ROLE}
    assert WITNESS_ROLE not in found.values()


@pytest.mark.parametrize(
    "group", [("evidence", "observer"), ("cases", "shredder"), ("router", "jobs"), ("trust", "jobs")]
)
def test_a_role_of_ones_own_is_shared_with_nobody(group: tuple[str, ...]) -> None:
    """Together with another agent in one process it is refused, with the reason."""
    with pytest.raises(Refused, match=f"{', '.join(group)} in one process"):
        role_of(group)


def test_what_the_gate_seals_with_is_denied_to_all_others() -> None:
    """A pattern that reads all secrets comes with a denial; who reads by name does not name it. The operator's changes it unread."""
    changes = 'path "ratchet/data/gate" {\n  capabilities = ["patch"]\n}\n'
    assert changes in policies()["ratchet-operator"]
    for name, text in policies().items():
        text = text.replace(changes, "") if name == "ratchet-operator" else text  # noqa: PLW2901
        if name != GATE_ROLE and '"ratchet/data/*"' in text:
            assert 'path "ratchet/data/gate" {\n  capabilities = ["deny"]' in text, name
        else:
            assert name == GATE_ROLE or "ratchet/data/gate" not in text, name
    assert "deny" not in policies()[GATE_ROLE]


def test_the_shredder_can_neither_unwrap_nor_derive() -> None:
    """It reads its own password, and principals' keys to know who commands: nothing of transit, no commitment."""
    text = policies("x", "brokers/erasing")[SHREDDER_ROLE]
    paths = {line.split('"')[1] for line in text.splitlines() if line.startswith("path")}
    assert paths == {"ratchet/data/brokers/erasing", "ratchet/data/principals", "ratchet/data/principals/*"}
    assert text.count('["read"]') == len(paths)


def test_nobody_may_destroy_or_export_a_tenants_key() -> None:
    """Wrap, unwrap and look is all that any policy says of them."""
    for text in policies().values():
        rights = dict(re.findall(r'path "(transit/[^"]*)" \{\n  capabilities = \[([^]]*)\]', text))
        assert all(path.split("/")[1] in {"sign", "keys", "encrypt", "decrypt"} for path in rights)
        assert {able for path, able in rights.items() if path.startswith("transit/keys/")} <= {'"read"'}


def test_no_policy_signs_by_pattern_and_every_role_has_one() -> None:
    """A new transit key is nobody's until its role is written down."""
    rows = policies()
    assert set(ROLES.values()) < rows.keys()
    assert not [name for name, text in rows.items() if "transit/sign/*" in text]
    for key in SIGNING_KEYS:
        assert len([name for name, text in rows.items() if f'"transit/sign/{key}"' in text]) == 1


def test_the_keys_have_the_names_that_signers_ask_for() -> None:
    """Names are written twice, so that a command does not load Vault's client for them."""
    assert SIGNING_KEYS == (secrets.NOTARY_KEY, secrets.ATTESTER_KEY, secrets.MANIFEST_KEY, secrets.WITNESS_KEY)


def test_the_evidence_process_reads_its_own_password_and_no_other() -> None:
    """Also where the settings name the user or its folder."""
    text = policies("brokers/auditing")["ratchet-evidence"]
    assert '"ratchet/data/brokers/auditing"' in text
    assert "kafka" not in text
