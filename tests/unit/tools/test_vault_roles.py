"""Which process logs in to the stack's own Vault as what."""

import pytest

from infra import secrets
from schemas.errors import Refused
from tools.stack.roles import EVIDENCE_ROLE, ROLE, ROLES, SIGNING_KEYS, TRAINING_ROLE, WITNESS_ROLE, policies, role_of
from tools.stack.stack import AGENT_GROUPS


def test_every_process_of_the_stack_has_one_role() -> None:
    """Evidence and who starts training jobs have one of their own; no agent has the witness's."""
    found = {group: role_of(group) for group in AGENT_GROUPS}
    assert found[("evidence",)] == EVIDENCE_ROLE
    assert found[("trainer", "jobs", "grader")] == TRAINING_ROLE
    assert {role for group, role in found.items() if not {"evidence", "jobs"} & set(group)} == {ROLE}
    assert WITNESS_ROLE not in found.values()


def test_evidence_shares_its_role_with_nobody() -> None:
    """Together with another agent in one process it is refused, with the reason."""
    with pytest.raises(Refused, match="evidence, observer in one process"):
        role_of(("evidence", "observer"))


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
