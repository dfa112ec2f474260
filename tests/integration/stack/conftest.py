"""What tests of whole stacks share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.settings import Settings, load
from tools.stack import down


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """A state folder of the test's own, which the commands find by the environment."""
    own = Settings(state_dir=tmp_path / "state", cache_dir=load().resolved().cache_dir, engine="scripted", partitions=2)
    monkeypatch.setenv("RATCHET_STATE_DIR", str(own.state_dir))
    yield own
    if (own.state_dir / "stack.json").exists():
        down(settings=own)
