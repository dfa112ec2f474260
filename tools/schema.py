"""The contract's files: write them, and refuse drift and incompatible changes. `python -m tools.schema export|check`.

`schemas/json/<type>.v1.json`, `schemas/asyncapi.json` and `schemas/evidence-entry.v1.json` are generated.
`schemas/history/<type>/<n>.json` keeps every released version; `export --release` adds a version for each type whose schema changed in
more than its notes, and is the only thing that writes there. Exit codes: 0 done, 1 the answer is no, 2 used wrongly.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agents.evidence import entries
from schemas.compat import same, violations
from schemas.export import asyncapi, json_schemas
from schemas.payload import REGISTRY

ROOT = Path(__file__).resolve().parent.parent / "schemas"
BOTH_WAYS = ("audit", "promotions")  # outsiders verify these with readers that we do not update


def text(document: Mapping[str, Any]) -> str:
    """A document as its file holds it."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def generated(root: Path) -> dict[Path, str]:
    """Every generated file with its content."""
    files = {root / "json" / f"{name}.v1.json": text(schema) for name, schema in json_schemas().items()}
    return files | {root / "asyncapi.json": text(asyncapi()), root / "evidence-entry.v1.json": text(entries.document())}


def history(root: Path) -> dict[str, list[tuple[int, dict[str, Any]]]]:
    """Type name to its released versions, oldest first. ValueError when a number is missing."""
    found: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for folder in sorted((root / "history").glob("*/")):
        versions = sorted(
            (int(file.stem), json.loads(file.read_text(encoding="utf-8"))) for file in folder.glob("*.json")
        )
        if [number for number, _ in versions] != list(range(1, len(versions) + 1)):
            raise ValueError(f"{folder.name}: versions {[number for number, _ in versions]}; accepted: 1, 2, 3 … whole")
        found[folder.name] = versions
    return found


def drift(root: Path) -> list[str]:
    """Generated files that are missing, stale or left over."""
    wanted = generated(root)
    problems = [
        f"{file.relative_to(root.parent)}: {'stale' if file.exists() else 'missing'}; `python -m tools.schema export`"
        for file, content in wanted.items()
        if not file.exists() or file.read_text(encoding="utf-8") != content
    ]
    left = sorted(set((root / "json").glob("*.json")) - set(wanted))
    return problems + [f"{file.relative_to(root.parent)}: no such event type; remove it" for file in left]


def incompatible(
    current: Mapping[str, Mapping[str, Any]],
    released: Mapping[str, Sequence[tuple[int, Mapping[str, Any]]]],
    topics: Mapping[str, str],
) -> list[str]:
    """Every way in which a current schema breaks with any earlier version of itself."""
    problems: list[str] = []
    for name, versions in released.items():
        if name not in current:
            problems.append(f"{name}: released and gone; a released type stays readable")
            continue
        for number, old in versions:
            problems += [f"{name} against version {number}: {line}" for line in violations(current[name], old)]
            if topics[name] in BOTH_WAYS:
                problems += [f"{name}: readers of version {number}: {line}" for line in violations(old, current[name])]
    return problems


def export(root: Path, *, release: bool) -> int:
    """Write the generated files, and with `release` the new versions. Refuses to release what is incompatible."""
    current, released = json_schemas(), history(root)
    if release and (problems := incompatible(current, released, _topics())):
        return _say(problems)
    wanted = generated(root)
    for file in set((root / "json").glob("*.json")) - set(wanted):
        file.unlink()
    for file, content in wanted.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")
    added = 0
    for name, schema in current.items() if release else ():
        versions = released.get(name, [])
        if not versions or not same(versions[-1][1], schema):
            file = root / "history" / name / f"{len(versions) + 1}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text(schema), encoding="utf-8")
            added += 1
    print(f"schemas: {len(wanted)} files, {added} new versions")
    return 0


def check(root: Path) -> int:
    """0 when the files are those of the models and no released version is broken."""
    current, released = json_schemas(), history(root)
    problems = drift(root) + incompatible(current, released, _topics())
    if problems:
        return _say(problems)
    unreleased = sum(not released.get(name) or not same(released[name][-1][1], current[name]) for name in current)
    versions = sum(len(rows) for rows in released.values())
    print(f"schemas: {len(current)} types, {versions} released versions, all compatible; {unreleased} types unreleased")
    return 0


def _topics() -> dict[str, str]:
    return {name: model.TOPIC for name, model in REGISTRY.items()}


def _say(problems: Sequence[str]) -> int:
    for line in problems:
        print(line, file=sys.stderr)
    return 1


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """The command line; `root` is the folder of the files."""
    parser = argparse.ArgumentParser(prog="python -m tools.schema", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    exporting = verbs.add_parser("export", help="write the generated files")
    exporting.add_argument("--release", action="store_true", help="keep the current schemas as new versions")
    verbs.add_parser("check", help="refuse drift and incompatible changes")
    chosen = parser.parse_args(arguments)
    return export(root, release=chosen.release) if chosen.verb == "export" else check(root)


if __name__ == "__main__":
    sys.exit(main())
