"""The import contracts know every package: a new one fails here until it is placed."""

import ast
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CONTRACTS: list[dict[str, Any]] = PROJECT["tool"]["importlinter"]["contracts"]


def packages(folder: Path) -> set[str]:
    return {file.parent.name for file in folder.glob("*/__init__.py")}


def named(word: str) -> dict[str, Any]:
    return next(contract for contract in CONTRACTS if word in contract["name"])


def test_every_top_level_package_is_placed() -> None:
    """Folders, linted roots, layers, packaged and type-checked packages are the same five."""
    found = packages(ROOT)
    layers = {name for row in named("layers: tools")["layers"] for name in row.split(" | ")}
    assert found == set(PROJECT["tool"]["importlinter"]["root_packages"]) == layers
    assert found == {name.rstrip("*") for name in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert found == set(PROJECT["tool"]["pyright"]["include"])


def test_every_agent_is_placed() -> None:
    """An agent's folder stands in the layers of agents and among those whose actor stands above their rules."""
    agents = packages(ROOT / "agents") - {"rules"}
    assert agents == set(named("each agent, independent")["layers"][-2].split(" | "))
    assert {f"agents.{name}" for name in agents} == set(named("actor > decide")["containers"])


def test_schemas_need_nothing_but_pydantic() -> None:
    """The bottom layer imports pydantic and the standard library only."""
    for file in (ROOT / "schemas").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom) and node.level == 0
                else []
            )
            for name in names:
                top = name.split(".")[0]
                assert top in sys.stdlib_module_names | {"pydantic", "pydantic_core", "schemas"}, f"{file}: {name}"
