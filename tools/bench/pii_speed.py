"""How long detection takes: on the file's texts, on 2 kB, and on texts made to be slow."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

AT_LEAST_S = 1.0
ROUNDS = 3
TWO_KB = 2048
KB_TEXTS = 500
HUNDRED_KB = 100_000
# What is repeated: a start of each kind that never ends, a number on a number, what folding removes, lengthens or reads, words of rules.
ADVERSARIAL = (
    "a", "1", "1 ", "1-", "a.", "a@", "a@a.a", "a@b.cc.", "http://", "://a.b", "www.", "::", "0:", "1:2:3:", "2001:db8::", "1.1.", "GB82",
    "GB82 WEST 1234", "4111 1111 ", "4111111111111111 ", "O0l1", "123-45-6789 ", "078 05 1123 ", "021 400 6034 ", "+44 20 7946 0958 ",
    "phone 123 456 7890 ", "jan 1 ", "1/1/", "on 1/1 ", " born ", "mrn: A123 ", "E11 ", "diabetes ", "key=", "token: abc ", "curl -u a:b ",
    "-----BEGIN PRIVATE KEY-----\n", "eyJ", "password = ", "api_key='a1b2c3d4e5f6g7h8' ", "kind: secret data: ", "s.", "sk", "é",
    "a\u200b", "\ufdfa", "\U0001d7d9", "'", "\n", "%41", "&#65;", "&amp;", "\\u0041", "\\n", "\x00a",
    "_4111111111111111", "Visa4111111111111111 ", "4111\t", "at 20 ", "IBANDE89 ", "mrn|", "x_",
)  # fmt: skip
Detect = Callable[[str], object]


def texts_per_s(texts: Sequence[str], detect: Detect) -> float:
    """By second of a processor, the texts in turn for a second or longer, after one pass that warms up."""
    for text in texts:
        detect(text)
    started, done = time.process_time(), 0
    while (spent := time.process_time() - started) < AT_LEAST_S:
        for text in texts:
            detect(text)
        done += len(texts)
    return done / spent


def two_kb(texts: Sequence[str], detect: Detect) -> dict[str, float]:
    """ms over texts of 2,048 characters made of the file's, one call each after one that warms up: by the processor's clock (there is
    nothing to wait for), and by the wall's, where neighbours show."""
    whole = " ".join(texts)
    while len(whole) < 2 * TWO_KB:
        whole += " " + whole
    step = max(1, (len(whole) - TWO_KB) // KB_TEXTS)
    parts = [whole[at : at + TWO_KB] for at in range(0, len(whole) - TWO_KB, step)]
    for part in parts:
        detect(part)
    took = [_took(part, detect) for part in parts]
    cpu, wall = (sorted(1000 * one[clock] for one in took) for clock in (0, 1))
    last = math.ceil(0.99 * len(parts)) - 1
    return {"p50": cpu[len(cpu) // 2], "p99": cpu[last], "p99_wall": wall[last]}


def adversarial(detect: Detect, size: int = HUNDRED_KB) -> list[dict[str, Any]]:
    """Each of the texts made to be slow at a size and at twice that: ms by the processor's clock, the best of three."""
    rows: list[dict[str, Any]] = []
    for piece in ADVERSARIAL:
        detect(_of(piece, TWO_KB))
        one, two = (
            1000 * min(_took(_of(piece, length), detect)[0] for _ in range(ROUNDS)) for length in (size, 2 * size)
        )
        rows.append(
            {"piece": ascii(piece), "ms_100kb": round(one, 2), "ms_200kb": round(two, 2), "ratio": round(two / one, 2)}
        )
    return sorted(rows, key=lambda row: -row["ms_100kb"])


def _of(piece: str, length: int) -> str:
    return (piece * (length // len(piece) + 1))[:length]


def _took(text: str, detect: Detect) -> tuple[float, float]:
    """Seconds of the processor and of the wall."""
    cpu, wall = time.process_time(), time.perf_counter()
    detect(text)
    return time.process_time() - cpu, time.perf_counter() - wall
