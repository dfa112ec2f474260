"""Route files: valid ones become routes, every error of a bad one is named at once."""

from pathlib import Path

import pytest

from schemas.errors import Refused
from tools.routes import parse_route, read_route

GOOD = """
route = "banking.intent"
champion = "base"
[[arms]]
arm = "base"
base = "sha256:aa"
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "route.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_a_good_file_is_a_route(tmp_path: Path) -> None:
    """What is not said has its default."""
    route = read_route(write(tmp_path, GOOD))
    assert (route.route, route.release, route.arms[0].template) == ("banking.intent", "gated", "{text}")


def test_arm_tables_may_be_singular(tmp_path: Path) -> None:
    """`[[arm]]` reads as `[[arms]]`."""
    assert read_route(write(tmp_path, GOOD.replace("[[arms]]", "[[arm]]"))).arms[0].arm == "base"


def test_every_error_is_named_at_once(tmp_path: Path) -> None:
    """File and field path of each, a near name suggested, and no line about what is only a consequence."""
    bad = GOOD.replace('champion = "base"', 'champion = "base"\nwindw_s = 3\ndeadline_s = "x"').replace(
        'base = "sha256:aa"', 'base = "sha256:aa"\ntemperatur = 1\n[judge]\nalpha = 0.9'
    )
    file = write(tmp_path, bad)
    with pytest.raises(Refused) as caught:
        read_route(file)
    assert sorted(line.removeprefix(f"{file}: ") for line in str(caught.value).splitlines()) == [
        "arms[0].temperatur: no such setting; did you mean 'temperature'?",
        "deadline_s: 'x' is not accepted: Input should be a valid number, unable to parse string as a number",
        "judge.alpha: 0.9 is not accepted: Input should be less than or equal to 0.2",
        "windw_s: no such setting; did you mean 'window_s'?",
    ]


def test_errors_between_fields_are_named(tmp_path: Path) -> None:
    """A champion that is no arm is refused with the arms there are."""
    with pytest.raises(Refused, match="champion: 'other' is not an arm of this route; arms are"):
        read_route(write(tmp_path, GOOD.replace('champion = "base"', 'champion = "other"')))


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"route = ", "not TOML"), (b"\xff", "not UTF-8"), (b"", "route: is missing")],
)
def test_what_is_no_route_file_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    """Syntax, encoding and emptiness each have their sentence."""
    file = tmp_path / "route.toml"
    file.write_bytes(content)
    with pytest.raises(Refused) as caught:
        read_route(file)
    assert said in str(caught.value).replace("is not UTF-8", "not UTF-8")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The path and the reason."""
    with pytest.raises(Refused, match=r"none\.toml: cannot be read: No such file"):
        read_route(tmp_path / "none.toml")


def test_the_example_of_routing_is_a_route() -> None:
    """What the documents show can be applied, and names every arm that is chosen from."""
    made = read_route(Path(__file__).parents[3] / "docs" / "examples" / "routing.toml")
    assert made.routing.chosen_from(made.champion) == ("large", "small")
    assert [price.since_ms for price in made.routing.prices if price.arm == "outside"] == [0, 1_798_761_600_000]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"routing": {"budgt": {}}}, "did you mean 'budget'"),
        ({"routing": {"budget": {"nano": 1}}}, "did you mean 'nano_usd'"),
        ({"routing": {"arms": ["none"]}}, "routing.arms"),
        ({"routing": {"strategy": "balanced", "regions": ["eu"]}}, "routing.regions"),
        ({"routing": {"arm": "base", "strategy": "balanced"}}, "only the strategy fixed"),
    ],
)
def test_a_wrong_routing_is_named(changes: dict[str, object], said: str) -> None:
    """The field, and what would be accepted."""
    with pytest.raises(Refused, match=said):
        parse_route({"route": "r", "champion": "base", "arms": [{"arm": "base", "base": "sha256:0"}]} | changes, "f")


def test_a_tenants_file_is_sent_to_its_own_command(tmp_path: Path) -> None:
    """Instead of a list of settings that no route has."""
    with pytest.raises(Refused, match=r"is a tenant's file: `ratchet tenant apply "):
        read_route(write(tmp_path, 'tenant = "a"\n[purposes]\ncare = ["contract"]'))
