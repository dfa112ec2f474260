"""Who may do what in Kafka: one principal per agent and per process of the local stack, and those outside. Made from the code.

Inputs are those of the agents' shapes (`agents/wiring.py`), outputs those of the event types that each sends (`SENDERS`).
"""

from collections.abc import Collection, Iterable, Sequence

from agents import wiring
from agents.observer.app import topics as observed
from schemas.export import SENDERS
from schemas.payload import REGISTRY
from schemas.topics import PREFIX, TOPICS, deferred_topic, dlq_of, full, order_topic, recorded, state_topic
from streams.acl import CLUSTER, Acl, Right, Work, acls, principal_of, rights

PUBLISHED = tuple(row.full for row in TOPICS if row.name != "keyring")
LETTERS = tuple(row.dlq for row in TOPICS if row.dead_letters)
HISTORY = tuple(topic for name in wiring.FOLDS for topic in (state_topic(name), order_topic(name)))
INTERNAL = (*HISTORY, *(deferred_topic(name) for name in wiring.TRANSFORMS))


def outputs(sender: str) -> tuple[str, ...]:
    """The topics of the event types that a sender sends."""
    return tuple(sorted({REGISTRY[name].TOPIC for name in SENDERS.get(sender, ())}))


def agents_work() -> dict[str, Work]:
    """What each agent declares."""
    found: dict[str, Work] = {}
    for group, topics in wiring.groups().items():
        name = group.removeprefix(PREFIX)
        inputs = tuple(topic for topic in topics if topic != deferred_topic(name))
        reads = ((wiring.VIEW,) if name in wiring.VIEWERS else ()) + (wiring.JOB_READS if name == "jobs" else ())
        shape = "fold" if name in wiring.FOLDS else "transform"
        found[name] = Work(name, shape, inputs=inputs, reads=reads, outputs=outputs(name))
    found["evidence"] = Work("evidence", "sequencer", reads=(*recorded(), "keyring"), outputs=outputs("evidence"))
    found["observer"] = Work("observer", "observer", reads=tuple(observed()))
    return found


def outside_work() -> dict[str, Work]:
    """What people and other systems do: upstream asks, reviewers judge, operators look at everything and command.

    `repair` sends dead letters back, frees halted lanes and moves groups: it writes what agents take in, so it is nobody's
    everyday user.
    """
    taken = sorted({full(topic) for work in agents_work().values() for topic in work.inputs})
    look = (
        Right("cluster", CLUSTER, "describe"),
        Right("topic", PREFIX, "describe", "prefixed"),
        Right("topic", PREFIX, "describe-configs", "prefixed"),
        Right("group", PREFIX, "describe", "prefixed"),
    )
    return {
        "upstream": Work(
            "upstream",
            "outside",
            reads=("answers", "requests", "requests.dlq"),
            outputs=outputs("upstream"),
            groups=("upstream.",),
        ),
        "reviewer": Work(
            "reviewer", "outside", reads=("reviews", "verdicts"), outputs=outputs("reviewer"), groups=("reviewer.",)
        ),
        "operator": Work(
            "operator",
            "outside",
            reads=(*PUBLISHED, *LETTERS, *INTERNAL),
            outputs=outputs("operator"),
            groups=("operator.",),
            more=look,
        ),
        "auditor": Work("auditor", "outside", reads=("audit", "promotions"), groups=("auditor.",)),
        "repair": Work(
            "repair",
            "outside",
            reads=(*PUBLISHED, *LETTERS, *INTERNAL),
            outputs=(
                *taken,
                *(dlq_of(topic) for topic in taken if dlq_of(topic) in LETTERS),
                *outputs("operator"),
                *HISTORY,
            ),
            groups=(PREFIX,),
            more=(*look, Right("transactional-id", PREFIX, "write", "prefixed")),
        ),
    }


def principals(processes: Iterable[Sequence[str]]) -> dict[str, tuple[Work, ...]]:
    """User -> works: every agent alone, those outside, and each process of several agents with the union of their rights."""
    works = agents_work()
    found: dict[str, tuple[Work, ...]] = {name: (work,) for name, work in works.items()}
    found |= {name: (work,) for name, work in outside_work().items()}
    for names in processes:
        found[principal_of(names)] = tuple(works[name] for name in names)
    return found


def generated(processes: Iterable[Sequence[str]], users: Collection[str] = ()) -> frozenset[Acl]:
    """The ACLs of all principals, or of the named ones."""
    rows = principals(processes)
    return acls((user, works) for user, works in rows.items() if not users or user in users)


def table(processes: Iterable[Sequence[str]] = ()) -> str:
    """Every user's rights as the Markdown table of docs/security.md."""
    rows = ["| user | reads | writes | groups | transactional ids |", "| --- | --- | --- | --- | --- |"]
    for user, works in principals(processes).items():
        held = {right for work in works for right in rights(work)}
        cells = [
            _short({right.name for right in held if (right.resource, right.operation) == ("topic", operation)})
            for operation in ("read", "write")
        ]
        for resource in ("group", "transactional-id"):
            found = sorted(
                f"`{right.name}{'*' if right.pattern == 'prefixed' else ''}`"
                for right in held
                if right.resource == resource and right.operation != "describe"
            )
            cells.append(", ".join(found))
        rows.append(f"| `{user}` | {' | '.join(cell or '-' for cell in cells)} |")
    return "\n".join(rows) + "\n"


def _short(topics: set[str]) -> str:
    """Topics without our prefix; where all of a kind are there, their kind."""
    said: list[str] = []
    for name, kind in (
        ("all published", PUBLISHED),
        ("`*.dlq`", LETTERS),
        ("internal", INTERNAL),
        ("all recorded and their `*.dlq`", recorded()),
    ):
        if topics.issuperset(kind):
            said.append(name)
            topics = topics - set(kind)
    return ", ".join(said + [f"`{topic.removeprefix(PREFIX)}`" for topic in sorted(topics)])
