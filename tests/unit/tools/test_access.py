"""Every principal's rights against what the code does: an agent that gains an output, an input or a view gains the right, or fails here."""

import ast
import inspect
from pathlib import Path

import pytest

from agents import wiring
from agents.cases.actor import Grader
from agents.evidence.shredder import Shredder
from agents.inference.actor import Inference
from agents.router.actor import Router
from agents.trainer.actor import Jobs
from agents.trust.actor import Trust
from schemas import compliance, events, policies
from schemas.export import SENDERS
from schemas.payload import REGISTRY, Payload
from schemas.topics import full, plans
from streams.acl import Right, rights
from tools.access import agents_work, generated, outside_work, principals, table
from tools.stack.stack import AGENT_GROUPS

ROOT = Path(__file__).parents[3]
# Which agent a module belongs to; what stands here not at all sends nothing, and the test says so if it does.
MODULES = {
    "agents/router/actor.py": "router",
    "agents/router/refuse.py": "router",
    "agents/router/route.py": "router",
    "agents/router/second.py": "router",
    "agents/router/estimator.py": "estimator",
    "agents/router/learning.py": "learner",
    "agents/inference/actor.py": "inference",
    "agents/inference/decide.py": "inference",
    "agents/trust/actor.py": "trust",
    "agents/trust/decide.py": "trust",
    "agents/trust/fold.py": "ladder",
    "agents/cases/fold.py": "cases",
    "agents/judge/bench.py": "judge",
    "agents/judge/course.py": "judge",
    "agents/cases/actor.py": "grader",
    "agents/cases/decide.py": "grader",
    "agents/judge/decide.py": "judge",
    "agents/judge/fold.py": "judge",
    "agents/trainer/fold.py": "trainer",
    "agents/trainer/forget.py": "trainer",
    "agents/trainer/actor.py": "jobs",
    "agents/trainer/job.py": "jobs",
    "agents/training.py": "jobs",
    "agents/evidence/shred.py": "shredder",
    "agents/evidence/shredder.py": "shredder",
    "agents/trust/release.py": "trust",
    "agents/evidence/actor.py": "evidence",
    "agents/evidence/announce.py": "evidence",
    "agents/evidence/compliance.py": "compliance",
    "agents/evidence/keyring.py": "evidence",
    "agents/evidence/log.py": "evidence",
    "agents/evidence/record.py": "evidence",
    "agents/evidence/sequencer.py": "evidence",
}
CLASSES = {
    name: model
    for module in (compliance, events, policies)
    for name, model in inspect.getmembers(module, inspect.isclass)
    if issubclass(model, Payload) and model in REGISTRY.values()
}


def made_in(source: str) -> set[type[Payload]]:
    """The event classes that a module makes: called by their name. An error may have the name of an event."""
    nodes = list(ast.walk(ast.parse(source)))
    imports = (node for node in nodes if isinstance(node, ast.ImportFrom) and node.module == "schemas.errors")
    errors = {name.name for node in imports for name in node.names}
    calls = (node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name))
    return {CLASSES[name] for name in calls if name in CLASSES and name not in errors}


@pytest.mark.parametrize("file", sorted(str(path.relative_to(ROOT)) for path in (ROOT / "agents").rglob("*.py")))
def test_what_an_agent_makes_it_may_send(file: str) -> None:
    """The topic of each event that an agent's code makes is among its rights, whatever SENDERS says."""
    agent = MODULES.get(file)
    mine = {right.name for right in rights(agents_work()[agent]) if right.operation == "write"} if agent else set[str]()
    lacking = {
        model.TYPE for model in made_in((ROOT / file).read_text(encoding="utf-8")) if full(model.TOPIC) not in mine
    }
    assert not lacking, (
        f"{file} makes {sorted(lacking)}, to whose topics {agent} has no right: SENDERS in schemas/export.py"
    )


@pytest.mark.parametrize("agent", sorted(agents_work()))
def test_every_declared_output_is_a_right(agent: str) -> None:
    """The topic of each type in SENDERS may be written."""
    mine = rights(agents_work()[agent])
    for name in SENDERS.get(agent, ()):
        assert Right("topic", full(REGISTRY[name].TOPIC), "write") in mine


@pytest.mark.parametrize("shape", [Router, Inference, Trust, Jobs, Grader, Shredder])
def test_declared_inputs_are_the_shapes(shape: type[Router | Inference | Trust | Jobs | Grader | Shredder]) -> None:
    """What the composition root says of a Transform's inputs is what its class says."""
    name = shape.name
    assert [full(topic) for topic in wiring.INPUTS[name]] == [full(topic) for topic in shape.inputs]


def test_only_those_that_say_so_have_the_view() -> None:
    """A builder in the composition root that asks for the view belongs to an agent that may read it."""
    tree = ast.parse(inspect.getsource(wiring))
    askers = {
        node.name.removeprefix("_")
        for node in tree.body
        if isinstance(node, ast.AsyncFunctionDef)
        and any(isinstance(call, ast.Attribute) and call.attr == "view" for call in ast.walk(node))
    }
    assert askers == set(wiring.VIEWERS)


def test_training_jobs_look_keys_up_and_make_none() -> None:
    """Who connects as `jobs` reads the keyring and the policies of the gate, and writes neither."""
    held = rights(agents_work()["jobs"])
    for topic in ("keyring", "policies"):
        mine = {right.operation for right in held if right.resource == "topic" and right.name == full(topic)}
        assert "read" in mine
        assert "write" not in mine


def test_all_agents_and_no_other_have_rights() -> None:
    """Every agent of the composition root is a principal, and every sender outside too."""
    assert set(agents_work()) == set(wiring.AGENTS)
    assert {"upstream", "reviewer", "operator"} <= set(outside_work())
    assert set(principals(AGENT_GROUPS)) > {"-".join(group) for group in AGENT_GROUPS}


def test_the_keyring_is_evidences_and_the_shredders() -> None:
    """The topic of wrapped keys is written by who makes keys and who removes them, and by nobody outside, `repair` among them."""
    rows = [acl for acl in generated(AGENT_GROUPS) if "keyring" in acl.right.name]
    assert {acl.principal for acl in rows if acl.right.operation == "write"} == {"User:evidence", "User:shredder"}


def test_prefixes_of_topics_only_describe() -> None:
    """Nobody reads or writes topics by prefix: a new topic is open to those who declare it."""
    for acl in generated(AGENT_GROUPS):
        if acl.right.resource == "topic" and acl.right.pattern == "prefixed":
            assert acl.right.operation in {"describe", "describe-configs"}


def test_every_named_topic_exists() -> None:
    """A right to a topic that nobody creates would be a misspelt one."""
    there = {plan.full for plan in plans()}
    literal = {
        acl.right.name
        for acl in generated(AGENT_GROUPS)
        if acl.right.resource == "topic" and acl.right.pattern == "literal"
    }
    assert literal <= there


def test_a_new_output_without_a_right_is_caught() -> None:
    """Planted: a module of the router that makes another agent's event."""
    (made,) = made_in("from schemas.events import CaseClosed\nCaseClosed(x=1)\n")
    assert Right("topic", full(made.TOPIC), "write") not in rights(agents_work()["router"])


def test_the_documented_table_is_the_generated_one() -> None:
    """docs/security.md holds what `ratchet acl show --table` prints."""
    assert table() in (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
