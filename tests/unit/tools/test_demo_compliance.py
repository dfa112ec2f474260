"""The demonstration of compliance: what its story asks of the gate, its files, its provider, and when it has failed."""

import http.client
import json
import tomllib
from typing import Any

import pytest
from rich.console import Console

from agents.rules.gate import Asked, Book, Place, decide
from agents.rules.gate_check import without_effect
from agents.rules.gate_standard import STANDARD
from agents.rules.masking import mask
from infra.detect import detect
from schemas.gate import GateTenant, Scan
from schemas.routes import Route
from tools.demo.compliance import story
from tools.demo.compliance.provider import Provider
from tools.demo.compliance.report import passed, show
from tools.demo.compliance.story import ASKED, HOUSE, OUTSIDE, OVERSEAS, TENANT, Asks
from tools.demo.compliance.toml import written

NOW_MS = 1_800_000_000_000
PLACES = (Place(OUTSIDE, "eu-west"), Place(OVERSEAS, "us-east"), Place(HOUSE, "eu-central"))
BOOK = Book.of(STANDARD)


def decided(one: Asks) -> tuple[Any, Scan]:
    """What the gate says to a request of the story."""
    row = one.row("r-1", "canary")
    (message,) = row["messages"]
    found = tuple(detect(message["content"]))
    scan = Scan((found,), len(message["content"]), 100)
    clinic = story.tenant(NOW_MS, held=True)
    known = clinic if row["tenant"] == TENANT else None
    asked = Asked(
        "request",
        row["tenant"],
        row.get("purpose"),
        row.get("legal_basis"),
        clinic.notice,
        row.get("origin", clinic.origin),
        tuple(row.get("classes", ())),
        PLACES,
    )
    return decide(asked, scan, known, BOOK, NOW_MS), scan


@pytest.mark.parametrize("one", [one for one in ASKED if one.rule != "gate-id"], ids=lambda one: one.name)
def test_the_gate_does_with_each_request_what_the_story_says(one: Asks) -> None:
    """By the shipped rules, the real detectors and the clinic's configuration: denied by that rule, confined, masked or let through."""
    decision, scan = decided(one)
    rules = {row.rule for row in decision.fired}
    if one.outcome == "refused":
        assert decision.action == "deny"
        assert one.rule in rules
        return
    assert one.arm in decision.arms
    assert OVERSEAS not in decision.arms
    assert decision.action == ("confine" if one.arm == HOUSE else "mask" if one.raw else "allow")
    if one.arm == OUTSIDE:
        seen = mask([one.text], scan.findings, set(decision.masks)).texts[0]
        assert not [raw for raw in one.raw if raw in seen]


def test_every_permission_of_the_clinic_permits_something() -> None:
    """Else its file would mislead whoever copies it."""
    assert without_effect(story.tenant(NOW_MS, held=True), STANDARD) == ()


def test_a_canary_stands_in_denied_texts_alone() -> None:
    """Every request has an id, and no two one name."""
    for one in ASKED:
        assert ("canary" in one.row("r-1", "canary")["messages"][0]["content"]) == (one.outcome == "refused")
    assert len({one.name for one in ASKED}) == len(ASKED)


def test_settings_survive_their_files() -> None:
    """What is written as TOML is read as the same settings."""
    for held in (True, False):
        made = story.tenant(NOW_MS, held=held)
        assert GateTenant.model_validate(json.loads(json.dumps(tomllib.loads(written(made))))) == made
    route = story.route("sha256:" + "0" * 64, "http://127.0.0.1:1/v1")
    assert Route.model_validate(json.loads(json.dumps(tomllib.loads(written(route))))) == route


def test_the_provider_says_back_and_remembers_by_model() -> None:
    """What a model was told is known word for word; probes do not count; it ends when it is told to."""
    provider = Provider()
    provider.start()
    host, _, port = provider.url.removeprefix("http://").removesuffix("/v1").partition(":")
    try:
        for text in ("probe", "grüße [CARD_1]"):
            connection = http.client.HTTPConnection(host, int(port), timeout=5)
            body = json.dumps({"model": OUTSIDE, "messages": [{"role": "user", "content": text}]})
            connection.request("POST", "/v1/chat/completions", body.encode())
            said = json.loads(connection.getresponse().read())
            assert said["choices"][0]["message"]["content"] == f"Noted: {text}"
            connection.close()
    finally:
        provider.stop()
    assert provider.asked(OUTSIDE) == ["grüße [CARD_1]"]
    assert provider.asked(OVERSEAS) == []
    with pytest.raises(OSError, match="refused"):
        http.client.HTTPConnection(host, int(port), timeout=2).request("GET", "/")


def report(*, held: bool) -> dict[str, Any]:
    """Of one claim."""
    return {
        "engine": "vllm",
        "claims": [{"act": "gate", "claim": "a thing", "held": held, "seen": ""}],
        "held": int(held),
        "failed": [] if held else ["gate: a thing"],
        "seconds": {"total": 1.0},
    }


def test_one_claim_that_did_not_hold_fails_the_run(capsys: pytest.CaptureFixture[str], tmp_path: Any) -> None:
    """It is named on the last screen; a run that claimed nothing has not passed either."""
    assert passed(report(held=True))
    assert not passed(report(held=False))
    assert not passed(report(held=True) | {"claims": []})
    show(report(held=False), Console(), tmp_path)
    assert "gate: a thing" in capsys.readouterr().out
