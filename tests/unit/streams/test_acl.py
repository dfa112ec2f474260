"""Rights made from what is declared, compared with what a cluster holds."""

import pytest

from streams.acl import Acl, Right, Work, acls, compare, principal_of, rights


def named(work: Work) -> set[str]:
    """The rights as they are printed."""
    return {str(right) for right in rights(work)}


def test_a_transform_reads_its_inputs_and_writes_outputs_deferred_and_letters() -> None:
    """Exactly that, its group, and its transactional ids by prefix."""
    assert named(Work("echo", "transform", inputs=("requests",), reads=("policies",), outputs=("answers",))) == {
        "read topic ratchet.requests",
        "write topic ratchet.requests.dlq",
        "read topic ratchet.policies",
        "write topic ratchet.answers",
        "read topic ratchet.echo.deferred",
        "write topic ratchet.echo.deferred",
        "read group ratchet.echo",
        "write transactional-id ratchet.echo-*",
    }


def test_a_fold_has_its_state_and_writes_its_order() -> None:
    """A fold does not read the order that it writes, and defers nothing."""
    assert named(Work("sum", "fold", inputs=("cases",))) == {
        "read topic ratchet.cases",
        "write topic ratchet.cases.dlq",
        "read topic ratchet.sum.state",
        "write topic ratchet.sum.state",
        "write topic ratchet.sum.order",
        "read group ratchet.sum",
        "write transactional-id ratchet.sum-*",
    }


def test_an_input_without_dead_letters_gives_no_right_to_them() -> None:
    """`keyring` has no dead-letter topic."""
    assert "write topic ratchet.keyring.dlq" not in named(Work("shred", "transform", inputs=("keyring",)))


def test_the_sequencer_has_no_group_and_its_own_ids() -> None:
    """Evidence reads without a group; its fence and publisher are not lanes."""
    found = named(Work("evidence", "sequencer", reads=("cases",), outputs=("audit",)))
    assert "write transactional-id ratchet.evidence.*" in found
    assert not [right for right in found if "group" in right]


@pytest.mark.parametrize("shape", ["observer", "outside"])
def test_who_only_looks_writes_nothing(shape: str) -> None:
    """No output declared, no right to write."""
    work = Work("look", "observer" if shape == "observer" else "outside", reads=("answers",), groups=("look.",))
    assert not [right for right in rights(work) if right.operation == "write"]


def test_a_process_of_several_agents_has_the_union() -> None:
    """One principal, every right of each of its agents, and none besides."""
    one, two = Work("a", "fold", inputs=("cases",)), Work("b", "transform", inputs=("results",), outputs=("scores",))
    both = acls([(principal_of(("a", "b")), (one, two))])
    assert {acl.principal for acl in both} == {"User:a-b"}
    assert {acl.right for acl in both} == rights(one) | rights(two)


def test_compare_tells_missing_extra_and_others() -> None:
    """Another team's user is told and is no difference."""
    wanted = acls([("a", [Work("a", "outside", outputs=("requests",))])])
    stale = Acl("User:a", Right("topic", "ratchet.keyring", "read"))
    theirs = Acl("User:team", Right("topic", "ratchet.requests", "write"))
    assert compare(wanted, {*wanted, theirs}).same
    found = compare(wanted, {stale, theirs})
    assert (set(found.missing), found.extra, found.others) == (wanted, (stale,), (theirs,))
    assert not found.same


def test_what_everyone_may_do_is_a_difference() -> None:
    """It is a right of our principals too, though none of them is named."""
    wanted = acls([("a", [Work("a", "outside", outputs=("requests",))])])
    wide = Acl("User:*", Right("topic", "ratchet.", "read", "prefixed"))
    found = compare(wanted, {*wanted, wide})
    assert (found.everyone, found.same) == ((wide,), False)
