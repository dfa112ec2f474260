"""The options of a benchmark that simulates, or reads a file: what `judge` and `trust` have in common."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from schemas.errors import Refused


def parser_of(name: str) -> argparse.ArgumentParser:
    """A parser with `--replicates` and `--data`."""
    parser = argparse.ArgumentParser(f"ratchet bench {name}", add_help=False, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--replicates", type=int)
    parser.add_argument("--data", type=Path)
    return parser


def parsed(parser: argparse.ArgumentParser, options: Sequence[str], usage: str) -> argparse.Namespace:
    """What was chosen. Raises `Refused` with the usage for an unknown option, and replicates outside 1 to 100,000."""
    try:
        chosen, left = parser.parse_known_args(list(options))
    except argparse.ArgumentError as fault:
        raise Refused(f"{fault}; {usage}", kind="usage") from fault
    if left or (chosen.replicates is not None and not 1 <= chosen.replicates <= 100_000):
        raise Refused(f"not understood: {' '.join(left) or chosen.replicates}; {usage}", kind="usage")
    return chosen
