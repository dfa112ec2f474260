"""Banking77 and its split for the demonstration: which messages train the champion, arrive as traffic, or test both.

Pure but for reading the packaged file. The split is a function of the texts alone, so every machine has the same one.
"""

import csv
import gzip
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).parent / "data" / "banking77" / "train.csv.gz"
KNOWN_INTENTS = 60
TEMPLATE = "Customer: {text}\nIntent:"
STOP = ("\n",)
MAX_TOKENS = 24


@dataclass(frozen=True, slots=True)
class Message:
    """A customer's message and what a person said it is about (the intent in words)."""

    text: str
    intent: str


@dataclass(frozen=True, slots=True)
class Split:
    """`base` holds known intents only; no text is in two parts; `test` is never trained on by anyone."""

    known: frozenset[str]
    base: tuple[Message, ...]
    feedback: tuple[Message, ...]
    test: tuple[Message, ...]


def intent_words(category: str) -> str:
    """`card_arrival` as the model says it: `card arrival`."""
    return category.replace("_", " ").strip().lower()


def load(file: Path = FILE) -> list[Message]:
    """Every message of the packaged file, in its order; of messages equal but for case and space the first."""
    rows = csv.DictReader(io.StringIO(gzip.decompress(file.read_bytes()).decode()))
    seen: set[str] = set()
    messages: list[Message] = []
    for row in rows:
        text = " ".join(row["text"].split())
        if text.casefold() not in seen:
            seen.add(text.casefold())
            messages.append(Message(text, intent_words(row["category"])))
    return messages


def split(messages: Sequence[Message], known_intents: int = KNOWN_INTENTS) -> Split:
    """Known intents: 50 % base, 35 % feedback, 15 % test. New ones: 85 % feedback, 15 % test.

    Which intents are known, and where a message goes, is drawn by SHA-256 of the intent or the text. Within each part
    the order is that of the hash too, so that traffic mixes intents.
    """
    intents = sorted({m.intent for m in messages}, key=lambda intent: _draw("intent", intent))
    known = frozenset(intents[:known_intents])
    parts: tuple[list[Message], list[Message], list[Message]] = ([], [], [])
    for message in sorted(messages, key=lambda m: _draw("order", m.text)):
        share = _draw("part", message.text) % 100
        if share < 15:
            parts[2].append(message)
        elif share < 50 or message.intent not in known:
            parts[1].append(message)
        else:
            parts[0].append(message)
    return Split(known, *(tuple(part) for part in parts))


def _draw(label: str, value: str) -> int:
    return int.from_bytes(hashlib.sha256(f"banking77/{label}\x1f{value}".encode()).digest()[:8], "big")
