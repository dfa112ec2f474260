"""The mark on an answer, as `ratchet trace` tells it: who wrote it, and whether this is the answer that was marked."""

from pathlib import Path
from typing import Any

import pytest
from answering import KEYS, NOW, clinic, event_of, result, route, settled, trust
from gatekeeping import Table

from infra.clock import ManualClock
from infra.sealing import GATE_SECRET, GateKeys
from infra.secrets import LocalSecrets
from infra.settings import Settings
from tools.cli.marks import checked, keys_of
from tools.cli.trace import draw


async def answer(told: Any, **more: Any) -> dict[str, Any]:
    emits = await trust(Table(route(), clinic()), ManualClock(NOW), **more)(event_of(told))
    return emits[-1].payload.model_dump(mode="json")  # type: ignore[union-attr]


async def test_a_mark_is_told_and_checked() -> None:
    """A machine's answer, an approved one, a person's."""
    for told, words in (
        (result("Take two."), "A machine wrote this answer."),
        (settled("Take two."), "A machine wrote this answer; a person approved it."),
        (settled("Take two.", "corrected", result_id="", arm=""), "A person wrote this answer."),
    ):
        assert checked(await answer(told), KEYS) == ("holds", f"{words} The mark holds.")


@pytest.mark.parametrize(
    ("field", "value"),
    [("text", "Take three."), ("tenant", "other"), ("request_id", "r2"), ("result_id", "x2"), ("arm", "b"),
     ("mark", {"statement": "{}", "binding": "0" * 64}), ("mark", {"statement": "no", "binding": ""})],
)  # fmt: skip
async def test_another_answers_mark_does_not_hold(field: str, value: Any) -> None:
    """Whatever of the answer was changed after it went out."""
    found, words = checked(await answer(result("Take two.")) | {field: value}, KEYS)
    assert (found, "DOES NOT HOLD" in words) == ("broken", True)


async def test_every_word_of_the_statement_is_bound() -> None:
    """A statement that names a person in the machine's place does not hold."""
    data = await answer(result("Take two."))
    statement = data["mark"]["statement"].replace('"ai":true', '"ai":false').replace('"by":"model"', '"by":"person"')
    assert checked(data | {"mark": data["mark"] | {"statement": statement}}, KEYS)[0] == "broken"
    assert checked(data, GateKeys(bytes(32)))[0] == "broken"


async def test_without_a_key_or_a_mark_it_says_so() -> None:
    """Nothing is claimed that was not checked."""
    data = await answer(result("Take two."))
    assert checked(data, None)[0] == "unchecked"
    assert checked(data | {"mark": None}, KEYS) == ("none", "it bears no mark")
    assert checked({"at_ms": "x"}, KEYS)[0] == "broken"


async def test_a_mark_is_checked_with_the_key_that_it_names() -> None:
    """Whatever key seals today; one that was retired checks nothing, and one that was never there is no key of ours."""
    later = NOW - 1000
    rotated = GateKeys(bytes(range(32)), {later: bytes(32)})
    former = await answer(result("Take two."))
    assert checked(former, rotated)[0] == "holds"
    data = await answer(result("Take two."), keys=rotated)
    assert checked(data, rotated)[0] == "holds"
    assert checked(data, GateKeys(bytes(32), retired=[later])) == (
        "unchecked",
        "A machine wrote this answer. The mark was not checked: its key was retired.",
    )
    statement, binding = data["mark"]["statement"], data["mark"]["binding"]
    _, _, digits = binding.partition(":")
    for other in (
        digits,
        f"{later + 1}:{digits}",
        f"0:{digits}",
        f":{digits}",
        f"{later}:{digits[::-1]}",
        f"x{binding}",
    ):
        assert checked(data | {"mark": {"statement": statement, "binding": other}}, rotated)[0] == "broken"


async def test_keys_come_from_the_local_file_or_not_at_all(tmp_path: Path) -> None:
    """No file, a file with a key, a file whose key is none: never an error, a mark is unchecked then."""
    here = Settings(state_dir=tmp_path)
    assert await keys_of(here) is None
    source = LocalSecrets.open(tmp_path / "secrets.json")
    assert await keys_of(here) is not None
    await source.put(GATE_SECRET, {"key": "none"})
    assert await keys_of(here) is None
    assert await keys_of(Settings(state_dir=tmp_path, secrets="vault", vault_addr="http://127.0.0.1:1")) is None


def test_the_tree_shows_it() -> None:
    """Under the answer."""
    row = {
        "place": "ratchet.answers[0]@1",
        "id": "a",
        "type": "answer.released",
        "cause": "",
        "written_ms": 1,
        "data": None,
    }
    (child,) = draw("q", [row | {"mark": {"found": "holds", "words": "A machine wrote it."}}]).children
    assert "A machine wrote it." in str(child.children[0].label)
