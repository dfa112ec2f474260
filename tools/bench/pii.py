"""`ratchet bench pii`: what the detectors find in labelled texts, what they take for it wrongly, and how long they need.

Any file in presidio-research's format. Half of each file, by the hash of the text, may have been tuned on; the other half never was:
the limits hold for that one.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from infra.detect import detect
from schemas.errors import Refused
from tools.bench import Say, figure
from tools.bench.options import parsed, parser_of
from tools.bench.pii_data import halves, read
from tools.bench.pii_gate import gate_us
from tools.bench.pii_score import scored
from tools.bench.pii_speed import adversarial, texts_per_s, two_kb

USAGE = "ratchet bench pii --data FILE; FILE is a JSON list of texts with spans, in presidio-research's format"
NOTES = (
    "types, micro8: a finding is right when its type is the label's and their intersection is at least half their union, one to one",
    "gate: e-mail, card, phone, IBAN, SSN, IP; recall of their labels (text_recall: of texts with one, those with any finding)",
    "clean_flag_rate: of texts without such a label, those with such a finding",
    "tuned, held_out: halves of the file by SHA-256 of the text; templates repeat on both sides of the split",
    "unsupported: labels of other types; they are not looked for here",
    "texts_per_s and ms by the processor's clock (p99_wall by the wall's); 2 kB: parts of the file's texts; adversarial: the slowest "
    "of the table at 100 kB",
    "gate_us: scan, rules, masks and sealed map of a request of 500 characters in front of the router, by the processor's clock "
    "(wall: by the wall's): of the demonstration's customers; gate_dense: of the file's texts; masked: share with a value replaced",
)


def run(options: Sequence[str], say: Say) -> dict[str, Any]:
    """The benchmark. Raises `Refused` without a file, or for one of another format."""
    chosen = parsed(parser_of("pii"), options, USAGE)
    if chosen.data is None or chosen.replicates is not None:
        raise Refused(
            f"{'--data is missing' if chosen.data is None else 'not understood: --replicates'}; {USAGE}", kind="usage"
        )
    texts = read(chosen.data)
    whole = scored(texts, detect)
    parts = {name: scored(half, detect) for name, half in halves(texts).items()}
    say(f"{len(texts)} texts scored")
    plain = [text.text for text in texts]
    speed, long = texts_per_s(plain, detect), two_kb(plain, detect)
    say(f"{speed:.0f} texts/s")
    slow, gate = adversarial(detect), gate_us(plain)
    summary = _summary(parts["held_out"], speed, long, slow) | {"gate_us_p50": figure(gate["gate_us_p50"], at_most=150)}
    return {
        **whole,
        **parts,
        "unsupported": dict(Counter(label for text in texts for label in text.others).most_common()),
        "texts_per_s": round(speed),
        "p50_ms_2kb": round(long["p50"], 3),
        "p99_ms_2kb": round(long["p99"], 3),
        "p99_wall_ms_2kb": round(long["p99_wall"], 3),
        "adversarial_100kb_ms": slow[0]["ms_100kb"],
        "adversarial_ratio": max(row["ratio"] for row in slow),
        "adversarial": slow,
        **gate,
        "tables": {
            **{name: _rows(part) for name, part in (("all", whole), *parts.items())},
            "slowest texts": slow[:10],
        },
        "notes": list(NOTES),
        "summary": summary,
    }


def _summary(
    held_out: Mapping[str, Any], speed: float, long: Mapping[str, float], slow: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    gate = held_out["gate"]
    return {
        "held_out_f1": figure(held_out["micro8"]["f1"], at_least=0.95),
        "held_out_gate_recall": figure(gate["recall"], at_least=0.95),
        "held_out_clean_flag_rate": figure(gate["clean_flag_rate"], at_most=0.005),
        "texts_per_s": figure(round(speed), at_least=10_000),
        "p99_ms_2kb": figure(round(long["p99"], 3), at_most=1),
        "p99_wall_ms_2kb": figure(round(long["p99_wall"], 3)),
        "adversarial_100kb_ms": figure(slow[0]["ms_100kb"]),
        "adversarial_ratio": figure(max(row["ratio"] for row in slow), at_most=2.5),
    }


def _rows(part: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = [{"type": name, **row} for name, row in part["types"].items()]
    return [*rows, {"type": "all eight", "gold": sum(row["gold"] for row in rows), **part["micro8"]}]
