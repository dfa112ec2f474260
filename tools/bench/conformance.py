"""`ratchet bench conformance`: our formats, proofs and checks against vectors that others published.

Any folder can be given: what a file is, is seen from its content. What fits nothing here is ignored; what fits and cannot
be judged is named in `left_out`.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from schemas.errors import Refused
from tools.bench import Say, figure
from tools.bench import conformance_merkle as merkle
from tools.bench import conformance_notes as notes
from tools.bench import conformance_values as values
from tools.bench.conformance_files import Case, Folder
from tools.bench.options import parsed, parser_of

USAGE = "ratchet bench conformance --data DIR; DIR is a folder of published vectors"
SHOWN = 200
_OF_A_NODE = (merkle.probes, merkle.roots, merkle.paths, values.signatures, values.pairs, notes.vkeys)
NOTES = (
    "inclusion, consistency: RFC 6962 probes; roots: leaves and the roots of their trees; tile-paths: tlog-tiles",
    "notes, cosignatures, vkeys, checkpoints, proofs: C2SP's formats, read strictly; a proof with `extra` must be refused",
    "logs: every checkpoint of a folder against its tiles, and each against the one before",
    "wycheproof: a signature counts under a key of prime order only",
    "jcs: all of RFC 8785; what evidence itself writes gives the same bytes, or is refused for a float, a great integer, a key "
    "outside ASCII",
    "numbers: lines of a double and its ECMAScript form",
)


def run(options: Sequence[str], say: Say) -> dict[str, Any]:
    """The benchmark. Raises `Refused` for a folder that is none."""
    parser = parser_of("conformance")
    folder = parsed(parser, options, USAGE).data
    if folder is None or not folder.is_dir():
        raise Refused(f"--data: {'nothing' if folder is None else folder} is not a folder; {USAGE}", kind="usage")
    found = judged(folder)
    for name, row in found["families"].items():
        say(f"{name}: {row['passed']} passed, {row['failed']} failed")
    return found


def judged(root: Path) -> dict[str, Any]:
    """Every case under a folder."""
    folder = Folder(root)
    cases = list(_cases(folder))
    passed = Counter(case.family for case in cases if case.fault is None)
    failed = Counter(case.family for case in cases if case.fault is not None)
    families = {
        name: {"passed": passed[name], "failed": failed[name]} for name in dict.fromkeys(case.family for case in cases)
    }
    failures = [f"{case.family}: {case.where}: {case.fault}" for case in cases if case.fault is not None]
    shown = [{"family": name, **row} for name, row in sorted(families.items())]
    return {
        "families": dict(sorted(families.items())),
        "failures": failures,
        "left_out": folder.left_out,
        "tables": ({"families": shown} if shown else {})
        | ({"failures": [{"failure": one} for one in failures[:SHOWN]]} if failures else {}),
        "notes": list(NOTES),
        "summary": {
            "families": figure(len(families), at_least=1),
            "cases": figure(len(cases)),
            "failures": figure(len(failures), at_most=0),
        },
    }


def _cases(folder: Folder) -> Iterator[Case]:
    of_logs: set[str] = set()
    yield from merkle.logs(folder, of_logs)
    yield from values.documents(folder)
    for file in folder.files:
        for node in file.nodes():
            for judge in _OF_A_NODE:
                yield from judge(file, node)
        yield from values.numbers(file)
        if file.name not in of_logs:
            yield from notes.notes(folder, file)
            yield from notes.checkpoints(file)
            yield from notes.proofs(folder, file)
        file.forget()
