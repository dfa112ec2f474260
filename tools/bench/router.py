"""`ratchet bench router`: does the router earn its place on recorded outcomes of real models? One module for each format of data."""

import argparse
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from schemas.errors import Refused
from tools.bench import Say

FORMATS = {"routellm": "tools.bench.router_routellm", "paretobandit": "tools.bench.router_pareto"}
USAGE = f"ratchet bench router --data PATH --format {'|'.join(FORMATS)} [options of the format]"


def format_of(options: Sequence[str]) -> tuple[str, list[str]]:
    """The format, and the options that are left for it. Raises `Refused` with the usage."""
    parser = argparse.ArgumentParser("ratchet bench router", add_help=False, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--format")
    try:
        chosen, left = parser.parse_known_args(list(options))
    except argparse.ArgumentError as fault:
        raise Refused(f"{fault}; {USAGE}", kind="usage") from fault
    if chosen.format not in FORMATS:
        raise Refused(f"--format {chosen.format!r} is not known; {USAGE}", kind="usage")
    return chosen.format, left


def run(options: Sequence[str], say: Say) -> dict[str, Any]:
    """The benchmark. Raises `Refused` for options or data that are not understood."""
    name, left = format_of(options)
    found: dict[str, Any] = import_module(FORMATS[name]).run(left, say)
    return {"format": name, **found}
