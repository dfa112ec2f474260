"""`ratchet bench trust`: does the ladder keep its promise, how much does it release, how soon does the detector notice?

Synthetic scores, or with `--data` the recorded answers of real models. Nothing else is started.
"""

import argparse
from collections.abc import Sequence
from typing import Any

from schemas.errors import Refused
from tools.bench import Say, figure
from tools.bench import trust_suites as suites
from tools.bench.options import parsed, parser_of
from tools.bench.rows import table
from tools.bench.trust_data import Asked, on_file

SEED = 1
LABELS, REPLICATES, ORDERS = 5000, 2000, 300
RISKS = (0.05, 0.1, 0.2)
USAGE = (
    "ratchet bench trust [--replicates N] [--data FILE [--target MODEL]… [--panel A,B,…] [--risk .05,.1,.2]]; N is 1 to 100000 "
    f"(synthetic replicates, default {REPLICATES}; with --data orders, default {ORDERS}), a risk lies between 0 and 1"
)
NOTES = (
    "share: replicates in which the true risk of what is released was ever over the target; 95 % exact (Clopper-Pearson)",
    "coverage: mean true share that is released after so many labels; first_release: median over all replicates",
    "two_chains is the product's ladder; one_chain starts at 30 %; clopper_pearson and laplace are re-run every 10 labels",
    "detector: median_labels from a fresh detector, median_labels_warm after 1,000 labels at the old rate",
    "`agrees`: detectors and ladder here and in the product's own code gave the same, to the bit",
)


def options_of(options: Sequence[str]) -> argparse.Namespace:
    """The benchmark's own options. Raises `Refused` with the usage."""
    parser = parser_of("trust")
    parser.add_argument("--target", action="append", default=[])
    parser.add_argument("--panel")
    parser.add_argument("--risk")
    chosen = parsed(parser, options, USAGE)
    if chosen.data is None and (chosen.target or chosen.panel is not None or chosen.risk is not None):
        raise Refused(f"--target, --panel and --risk are about a file, and no --data is given; {USAGE}", kind="usage")
    chosen.risks = RISKS if chosen.risk is None else tuple(_risk(word) for word in chosen.risk.split(","))
    return chosen


def _risk(word: str) -> float:
    try:
        risk = float(word)
    except ValueError as fault:
        raise Refused(f"--risk: {word!r} is no number; {USAGE}", kind="usage") from fault
    if not 0.0 < risk < 1.0:
        raise Refused(f"--risk: {word!r}; {USAGE}", kind="usage")
    return risk


def run(options: Sequence[str], say: Say) -> dict[str, Any]:
    """The benchmark. Raises `Refused` for options or a file that are not understood."""
    chosen = options_of(options)
    if chosen.data is not None:
        panel = None if chosen.panel is None else tuple(chosen.panel.split(","))
        asked = Asked(tuple(chosen.target), panel, chosen.risks)
        return on_file(chosen.data, asked, SEED, chosen.replicates or ORDERS, LABELS, say)
    return synthetic(say, replicates=chosen.replicates or REPLICATES)


def synthetic(say: Say, *, replicates: int, labels: int = LABELS, lengths: int | None = None) -> dict[str, Any]:
    """The ladder on calibrated and on useless scores, and the detector."""
    found = suites.rows("ladder", "Beta(4, .6)", suites.ladders(SEED, 0, replicates, labels, useless=False), labels)
    say("ladder: done")
    found += suites.rows("useless", "6 % rejects", suites.ladders(SEED, 1, replicates, labels, useless=True), labels)
    say("useless scores: done")
    watched = suites.detector(SEED, replicates, lengths or max(1, replicates // 2))
    say("detector: done")
    differing = suites.differing(SEED)
    return {
        "seed": SEED,
        "labels": labels,
        "rows": found,
        "detector": watched,
        "agrees": not differing,
        "differing": differing,
        "tables": {
            "trust": table(found, *found[0]),
            "detector": table(watched["changes"], *watched["changes"][0]),
        },
        "notes": list(NOTES),
        "summary": {**suites.summary(found, watched), "differing_replays": figure(len(differing), at_most=0)},
    }
