"""`ratchet bench router --format routellm`: who should answer, the weak model or the strong one? (data: `router_data`)

Per seed a permutation of the prompts in five folds, equal prompts together. Of four folds some rows are labelled; the texts of all
their rows make the basis; the fifth fold is only scored. No setting is chosen on the data.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import Refused
from tools.bench import Say, figure
from tools.bench import router_rules as rules
from tools.bench.router_curve import Figures, figures, recovered
from tools.bench.router_data import Outcomes, read
from tools.bench.rows import table

SEEDS, FOLDS, LABELS = 5, 5, 1500
LEAST_LABELS, LEAST_APGR = 20, 0.60
METRICS = ("apgr", "cpt50", "cpt80")
USAGE = (
    f"ratchet bench router --format routellm --data DIR [--labels N] [--at-least APGR]; N from {LEAST_LABELS} (default {LABELS}), "
    f"APGR the least that passes, 0 to 1 (default {LEAST_APGR})"
)
NOTES = (
    "apgr: recovered gap, averaged over the share of strong calls (trapezoid at 0, 10 … 100 %); random .5, oracle above 1",
    "cpt50, cpt80: the least share of strong calls that recovers 50 %, 80 % of the gap",
    "mean, min, max are over the seeds; a seed's curve is that of its five folds together",
    "subject_mean knows each prompt's file, ours does not; it is null where there is one file",
)
Scores = dict[str, list[NDArray[np.float64]]]


def options_of(options: Sequence[str]) -> argparse.Namespace:
    """The format's own options. Raises `Refused` with the usage."""
    parser = argparse.ArgumentParser("ratchet bench router", add_help=False, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--labels", type=int, default=LABELS)
    parser.add_argument("--at-least", type=float, default=LEAST_APGR)
    try:
        chosen, left = parser.parse_known_args(list(options))
    except argparse.ArgumentError as fault:
        raise Refused(f"{fault}; {USAGE}", kind="usage") from fault
    if left or chosen.data is None or chosen.labels < LEAST_LABELS or not 0.0 <= chosen.at_least <= 1.0:
        raise Refused(f"not understood: {' '.join(map(str, options)) or 'no option'}; {USAGE}", kind="usage")
    return chosen


def run(options: Sequence[str], say: Say) -> dict[str, Any]:
    """The benchmark. Raises `Refused` for options or files that are not understood."""
    chosen = options_of(options)
    outcomes = read(chosen.data)
    say(f"{len(outcomes.prompts)} rows of {len(outcomes.files)} files, {outcomes.dropped} contaminated ones dropped")
    found = measured(outcomes, labels=chosen.labels, seeds=SEEDS, say=say)
    best = found["results"]["ours"]["apgr"]["mean"]
    summary = {
        "apgr": figure(best, at_least=chosen.at_least),
        **{f"apgr_{rule}": figure(found["results"][rule]["apgr"]["mean"]) for rule in ("length", "tfidf_lr_gain")},
    }
    return {
        **found,
        "passed": all(line["pass"] is not False for line in summary.values()),
        "summary": summary,
        "tables": {"who goes first to the strong model": _rows(found["results"])},
        "notes": list(NOTES),
    }


def measured(outcomes: Outcomes, *, labels: int, seeds: int, say: Say) -> dict[str, Any]:
    """Every rule on every seed. Raises `Refused` where there is nothing to gain, or too little to learn from."""
    _accepted(outcomes)
    texts = rules.Texts(outcomes.prompts)
    words = rules.words_of(texts.readings)
    groups = np.unique(np.array(outcomes.prompts, object), return_inverse=True)[1]
    by_seed: list[dict[str, Figures]] = []
    used = 0
    for seed in range(seeds):
        folds = folds_of(groups, seed)
        curves: Scores = {}
        for fold in range(FOLDS):
            split = split_of(folds, seed, fold, labels)
            used = len(split.labelled)
            for rule, scores in _scores(outcomes, texts, words, split).items():
                curves.setdefault(rule, []).append(recovered(scores, outcomes.gain[split.held]))
        by_seed.append({rule: figures(made) for rule, made in curves.items()})
        say(f"seed {seed}: " + ", ".join(f"{rule} {found.apgr:.4f}" for rule, found in by_seed[-1].items()))
    return {
        "n": len(outcomes.prompts),
        "dropped": outcomes.dropped,
        "files": len(outcomes.files),
        "labels": used,
        "folds": FOLDS,
        "seeds": seeds,
        "results": {"subject_mean": None, **{rule: _over(by_seed, rule) for rule in by_seed[0]}},
        "paired": {f"ours_minus_{rule}": _over(by_seed, "ours", rule) for rule in by_seed[0] if rule != "ours"},
    }


def folds_of(groups: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """The fold of each row: a permutation of the different prompts, cut in five."""
    order = np.random.default_rng([seed, 1]).permutation(int(groups.max()) + 1)
    return order[groups] % FOLDS


def split_of(folds: NDArray[np.int64], seed: int, fold: int, labels: int) -> rules.Split:
    """A fold to be scored, and which rows of the others are labelled."""
    others = np.flatnonzero(folds != fold)
    drawn = np.random.default_rng([seed, 2, fold]).permutation(others)[:labels]
    return rules.Split((seed, fold), others.tolist(), drawn.tolist(), np.flatnonzero(folds == fold).tolist())


def _scores(
    outcomes: Outcomes, texts: rules.Texts, words: Sequence[Any], split: rules.Split
) -> dict[str, NDArray[np.float64]]:
    gain = outcomes.gain
    found = {
        "ours": rules.ours(texts, outcomes.weak, outcomes.strong, split),
        "random": np.random.default_rng([*split.seed, 3]).random(len(split.held)),
        "length": texts.lengths[split.held],
        "tfidf_lr_gain": rules.tfidf_lr_gain(words, gain, split),
        "oracle": gain[split.held].astype(np.float64),
    }
    if len(outcomes.files) > 1:
        found["subject_mean"] = rules.subject_mean(outcomes.subjects, gain, split)
    return found


def _accepted(outcomes: Outcomes) -> None:
    rows, gain = len(outcomes.prompts), int(outcomes.gain.sum(dtype=np.int64))
    if len(set(outcomes.prompts)) < 2 * LEAST_LABELS:
        raise Refused(
            f"{rows} rows of {len(set(outcomes.prompts))} prompts; accepted: at least {2 * LEAST_LABELS} different ones",
            kind="outcomes",
        )
    if gain <= 0:
        raise Refused(
            f"the second boolean column is right {outcomes.strong.mean():.3f} of the time, the first {outcomes.weak.mean():.3f}: "
            "no gap to recover; accepted: the weak model's column first, then a stronger one's",
            kind="outcomes",
        )


def _over(by_seed: Sequence[Mapping[str, Figures]], rule: str, other: str | None = None) -> dict[str, dict[str, float]]:
    """Mean, least and greatest over the seeds; of the difference to another rule where one is named."""
    found: dict[str, dict[str, float]] = {}
    for metric in METRICS:
        values = [
            getattr(one[rule], metric) - (0.0 if other is None else getattr(one[other], metric)) for one in by_seed
        ]
        found[metric] = {
            "mean": round(float(np.mean(values)), 6), "min": round(min(values), 6), "max": round(max(values), 6),
        }  # fmt: skip
    return found


def _rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = [
        {"rule": rule, **{metric: found[metric]["mean"] for metric in METRICS}, "least apgr": found["apgr"]["min"]}
        for rule, found in results.items()
        if found is not None
    ]
    return table(rows, *rows[0])
