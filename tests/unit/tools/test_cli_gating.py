"""What `apply` and `status` say loudly of a route's gate."""

from pathlib import Path

import pytest

from agents.router.gate import BOOK, asked_of, check
from agents.rules.gate import Place
from infra.detect import detect
from schemas.events import RequestSubmitted
from schemas.gate import Flow, GateTenant, Scan
from schemas.routes import Arm, Route
from tools.cli.gating import row_of, warn, warnings
from tools.cli.screen import Screen
from tools.cli.submit import Defaults, read_lines
from tools.routes import read_route
from tools.tenants import read_tenant

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"
NOW = 1_800_000_000_000
ARMS = (Arm(arm="small", base="b", region="eu"), Arm(arm="big", base="b", region="us"))
ROUTE = Route(route="ward", tenant="clinic", arms=ARMS, champion="small")


def tenant(*flows: Flow) -> GateTenant:
    return GateTenant(tenant="clinic", flows=flows)


def test_a_route_without_a_gate_is_told() -> None:
    """Whatever its tenant has configured."""
    off = ROUTE.model_copy(update={"compliance": "off"})
    for held in (None, tenant(Flow(origin="eu", region="eu"))):
        [text] = warnings(off, held, NOW)
        assert text.startswith("NO GATE")


def test_a_gate_without_a_configuration_refuses_everything() -> None:
    """And what would configure it is named."""
    [text] = warnings(ROUTE, None, NOW)
    assert text.startswith("EVERY REQUEST IS REFUSED")
    assert "ratchet tenant apply" in text
    assert "clinic" in text


def test_arms_to_which_no_flow_leads_are_named() -> None:
    """Those alone, at this time; none: nothing is said; all: every request is refused."""
    home, away = Flow(origin="eu", region="eu"), Flow(origin="eu", region="us", tool="scc", until_ms=NOW)
    [text] = warnings(ROUTE, tenant(home, away), NOW)
    assert text.startswith("THE GATE KEEPS ARMS OUT: big:")
    assert warnings(ROUTE, tenant(home, away), NOW - 1) == []
    [text] = warnings(ROUTE, tenant(), NOW)
    assert text.startswith("EVERY REQUEST IS REFUSED")


def test_status_has_a_row_of_each_route() -> None:
    """For programs too."""
    row = row_of(ROUTE, None, NOW)
    assert (row["route"], row["tenant"], row["compliance"], row["configured"]) == ("ward", "clinic", "standard", False)
    assert len(row["warnings"]) == 1


def test_people_see_it(capsys: pytest.CaptureFixture[str]) -> None:
    """A line a warning."""
    warn(Screen(as_json=False), "ward", warnings(ROUTE, None, NOW))
    assert "EVERY REQUEST IS REFUSED" in capsys.readouterr().out


def action(request: RequestSubmitted, tenant: GateTenant, route: Route) -> str:
    """What the gate makes of it."""
    texts = [message.content for message in request.messages]
    asked = asked_of(
        "request",
        tenant.tenant,
        tenant,
        purpose=request.purpose,
        basis=request.legal_basis,
        origin=request.origin,
        places=[Place(arm.arm, arm.region) for arm in route.arms],
    )
    scan = Scan(tuple(tuple(detect(text)) for text in texts), sum(map(len, texts)), 0)
    return check(texts, asked, scan, tenant, BOOK, NOW).decision.action


def test_the_examples_go_together() -> None:
    """Who applies both has a route to whose arms flows lead, and requests that it takes."""
    route, clinic = read_route(EXAMPLES / "clinic.toml"), read_tenant(EXAMPLES / "tenant.toml")
    assert (route.tenant, route.compliance) == (clinic.tenant, "standard")
    assert warnings(route, clinic, NOW) == []
    assert set(clinic.private_arms) < {arm.arm for arm in route.arms}
    lines = read_lines(None, EXAMPLES / "clinic.jsonl", Defaults(route.route, None, None, clinic.tenant, "n", NOW))
    requests = [RequestSubmitted.model_validate_json(line.record.value) for line in lines]
    assert [action(one, clinic, route) for one in requests] == ["allow", "mask", "confine", "deny", "deny", "deny"]
