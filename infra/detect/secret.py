"""Secrets of programs: the rules of gitleaks (MIT, `infra/data/gitleaks`), which name tokens, keys and passwords by their form.

A rule looks only where one of its keywords stands; what it finds must be as random as the rule says, and on no list of examples.
Of what kind of file a text is nobody knows: a rule for one kind of file applies to all, one about names of files to none.
"""

import math
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.detect.pattern import Pattern, literally
from schemas.findings import Finding, Kind

FILE = Path(__file__).parents[1] / "data" / "gitleaks" / "gitleaks.toml"


@dataclass(frozen=True, slots=True)
class _Allowed:
    """What is no secret, and of what: the secret itself, the whole match, or its line."""

    target: str
    patterns: tuple[Pattern, ...]
    stopwords: Pattern | None

    def allows(self, text: bytes, match: tuple[int, int], secret: bytes) -> bool:
        about = {"match": text[slice(*match)], "line": _line(text, match)}.get(self.target, secret)
        if self.stopwords is not None and self.stopwords.found(secret):
            return True
        return any(pattern.found(about) for pattern in self.patterns)


@dataclass(frozen=True, slots=True)
class _Rule:
    name: str
    pattern: Pattern
    group: int
    entropy: float
    keywords: tuple[bytes, ...]
    allowed: tuple[_Allowed, ...]


@dataclass(frozen=True, slots=True)
class _Rules:
    """`keyword` finds the shortest keywords: those that hold no other; `by_keyword` has the rules of one and of all that hold it."""

    keyword: Pattern
    by_keyword: Mapping[bytes, tuple[_Rule, ...]]
    allowed: _Allowed


def find(text: bytes) -> Iterator[Finding]:
    """Every secret; what surrounds it in a rule (a name, a sign, quotes) is no part of the finding."""
    lowered = text.lower()
    asked: set[str] = set()
    for word in _keywords(_RULES.keyword, lowered):
        for rule in _RULES.by_keyword[word]:
            if rule.name not in asked and any(keyword in lowered for keyword in rule.keywords):
                asked.add(rule.name)
                yield from _found(rule, _RULES.allowed, text)


def keywords() -> list[str]:
    """What the rules look for before they look closer."""
    rules = {rule.name: rule for rules in _RULES.by_keyword.values() for rule in rules}
    return sorted({word.decode() for rule in rules.values() for word in rule.keywords})


def _keywords(pattern: Pattern, lowered: bytes) -> set[bytes]:
    """The keywords in a text, those that overlap too: the search goes on one byte behind where the last one starts."""
    words: set[bytes] = set()
    span = pattern.first(lowered, 0)
    while span is not None:
        words.add(lowered[slice(*span)])
        span = pattern.first(lowered, span[0] + 1)
    return words


def _found(rule: _Rule, everywhere: _Allowed, text: bytes) -> Iterator[Finding]:
    for groups in rule.pattern.all_groups(text):
        whole = groups[0]
        start, end = groups[rule.group] if rule.group else next((span for span in groups[1:] if span[0] >= 0), whole)
        secret = text[start:end]
        allowed = any(one.allows(text, whole, secret) for one in (*rule.allowed, everywhere))
        if secret and entropy(secret) > rule.entropy and not allowed:
            yield Finding(Kind.SECRET, start, end, rule.name, 0.8)


def entropy(part: bytes) -> float:
    """Shannon's, in bits a character."""
    return sum(-count / len(part) * math.log2(count / len(part)) for count in Counter(part).values()) if part else 0.0


def _line(text: bytes, match: tuple[int, int]) -> bytes:
    start = text.rfind(b"\n", max(match[0] - 1000, 0), match[0]) + 1
    end = text.find(b"\n", match[1], match[1] + 1000)
    return text[max(start, match[0] - 1000) : match[1] + 1000 if end < 0 else end]


def _rules() -> _Rules:
    given = tomllib.loads(FILE.read_text())
    rules = [_rule(rule) for rule in given["rules"] if "regex" in rule]
    every = {keyword for rule in rules for keyword in rule.keywords}
    shortest = {word for word in every if not any(other != word and other in word for other in every)}
    return _Rules(
        Pattern(literally(sorted(word.decode() for word in shortest))),
        {word: tuple(rule for rule in rules if any(word in keyword for keyword in rule.keywords)) for word in shortest},
        _allowed(given["allowlist"]),
    )


def _rule(given: Mapping[str, Any]) -> _Rule:
    return _Rule(
        given["id"],
        Pattern(given["regex"]),
        given.get("secretGroup", 0),
        given.get("entropy", -1.0),
        tuple(word.lower().encode() for word in given["keywords"]),
        tuple(_allowed(one) for one in given.get("allowlists", ()) if "paths" not in one),
    )


def _allowed(given: Mapping[str, Any]) -> _Allowed:
    words = given.get("stopwords", ())
    return _Allowed(
        given.get("regexTarget", "secret"),
        tuple(Pattern(regex) for regex in given.get("regexes", ())),
        Pattern(literally(words), any_case=True) if words else None,
    )


_RULES = _rules()  # when it is imported: the first text must not wait for it
