"""`ratchet model`: a folder becomes a digest that a route can name."""

import json
from pathlib import Path

import pytest

from tools.cli.models import add
from tools.cli.screen import Screen


def test_a_model_gets_its_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same files give the same digest; a folder without config.json is refused and says what is accepted."""
    monkeypatch.setenv("RATCHET_STATE_DIR", str(tmp_path / "state"))
    model = tmp_path / "model"
    model.mkdir()
    with pytest.raises(Exception, match=r"config\.json"):
        add(Screen(as_json=True), model)
    (model / "config.json").write_text("{}")
    assert add(Screen(as_json=True), model) == add(Screen(as_json=True), model) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows[0]["base"] == rows[1]["base"]
    assert rows[0]["base"].startswith("sha256:")
