"""Rights: what a principal may do in Kafka, made from what each agent declares. Pure; `kafka_acl.py` applies them.

Rules:
1. Nothing is allowed that is not listed; nothing is listed that the declared work does not need.
2. READ and WRITE imply DESCRIBE, so topics that an agent works on need no more; nobody but the stack creates or alters anything.
3. A process of several agents is one principal with the union of their rights.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal

from schemas.topics import BY_NAME, PREFIX, deferred_topic, dlq_of, full, order_topic, state_topic

Resource = Literal["topic", "group", "transactional-id", "cluster"]
Pattern = Literal["literal", "prefixed"]
Operation = Literal["read", "write", "describe", "describe-configs"]
Shape = Literal["transform", "fold", "sequencer", "observer", "outside"]
EVERYONE = "User:*"
CLUSTER = "kafka-cluster"  # the name that Kafka gives the cluster as a resource


@dataclass(frozen=True, slots=True, order=True)
class Right:
    """One thing that may be done."""

    resource: Resource
    name: str
    operation: Operation
    pattern: Pattern = "literal"

    def __str__(self) -> str:
        return f"{self.operation} {self.resource} {self.name}{'*' if self.pattern == 'prefixed' else ''}"


@dataclass(frozen=True, slots=True, order=True)
class Acl:
    """A right of a principal (`User:router`), as the cluster keeps it: allowed, from any host."""

    principal: str
    right: Right


@dataclass(frozen=True, slots=True)
class Work:
    """What an agent, or somebody outside, declares. Topics as in the table (`cases`, `requests.dlq`) or in full.

    `inputs` are consumed in the group `ratchet.<name>`, `reads` without a group (views, folds' helpers), `groups` are
    prefixes of groups of their own.
    """

    name: str
    shape: Shape
    inputs: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    more: tuple[Right, ...] = ()


def rights(work: Work) -> frozenset[Right]:
    """Everything that the work needs, and nothing else."""
    name, own = work.name, f"{PREFIX}{work.name}"
    reads = {full(topic) for topic in (*work.inputs, *work.reads)}
    writes = {full(topic) for topic in work.outputs}
    found = {Right("group", group, "read", "prefixed") for group in work.groups} | set(work.more)
    if work.shape == "transform":
        reads.add(deferred_topic(name))
        writes.add(deferred_topic(name))
    if work.shape in {"fold", "sequencer"}:
        reads.add(state_topic(name))
        writes.add(state_topic(name))
    if work.shape == "fold":
        writes.add(order_topic(name))
    if work.shape in {"transform", "fold"}:
        writes |= {dlq_of(full(topic)) for topic in work.inputs if _has_letters(topic)}
        found.add(Right("group", own, "read"))
        found.add(Right("transactional-id", f"{own}-", "write", "prefixed"))
    if work.shape == "sequencer":  # its fence and its publisher
        found.add(Right("transactional-id", f"{own}.", "write", "prefixed"))
    if work.shape == "observer":
        found.add(Right("group", own, "read"))
    found |= {Right("topic", topic, "read") for topic in reads}
    return frozenset(found | {Right("topic", topic, "write") for topic in writes})


def principal_of(names: Iterable[str]) -> str:
    """The user that a process of these agents connects as: their names, joined as the process is named."""
    return "-".join(names)


def acls(principals: Iterable[tuple[str, Collection[Work]]]) -> frozenset[Acl]:
    """The ACLs of users, each with the union of its works' rights."""
    return frozenset(
        Acl(f"User:{user}", right) for user, works in principals for work in works for right in rights(work)
    )


@dataclass(frozen=True, slots=True)
class Difference:
    """The cluster's ACLs against the generated ones.

    `extra`: of our principals, and not generated; `everyone`: of all, so of ours too; `others`: of other principals.
    """

    missing: tuple[Acl, ...]
    extra: tuple[Acl, ...]
    everyone: tuple[Acl, ...]
    others: tuple[Acl, ...]

    @property
    def same(self) -> bool:
        return not self.missing and not self.extra and not self.everyone


def compare(wanted: Collection[Acl], held: Collection[Acl]) -> Difference:
    """Other principals' ACLs are told and never touched: an upstream team may have its own user."""
    ours = {acl.principal for acl in wanted}
    beyond = sorted(set(held) - set(wanted))
    return Difference(
        tuple(sorted(set(wanted) - set(held))),
        tuple(acl for acl in beyond if acl.principal in ours),
        tuple(acl for acl in beyond if acl.principal == EVERYONE),
        tuple(acl for acl in beyond if acl.principal not in ours | {EVERYONE}),
    )


def _has_letters(topic: str) -> bool:
    known = BY_NAME.get(full(topic).removeprefix(PREFIX))
    return known is None or known.dead_letters
