"""Statements that single log entries make to the outside: in-toto Statement v1 in DSSE, one file per entry.

    training.completed    SLSA provenance v1 of the adapter          INDEX-training.dsse.json
    model.promoted        in-toto test result v0.1 of the promotion  INDEX-promotion.dsse.json

Pure: made of the entry alone, so that a rebuilt log gives the same bytes. A statement names its entry by origin, index and the
digest of its bytes: it says no more than the entry does, in the words that supply-chain tools read.
"""

import base64
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

from schemas import canonical
from schemas.dsse import PAYLOAD_TYPE, STATEMENT_TYPE, envelope, pae
from schemas.ids import digest

FOLDER = "attestations"
ENTRY = "evidence-log-entry"
PROVENANCE = "https://slsa.dev/provenance/v1"
TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"
BUILD_TYPE = "urn:ratchet:training:v1"
BUILDER = "urn:ratchet:jobs"
STATEMENTS = {"training.completed": "training", "model.promoted": "promotion"}
"""Entry type -> what its statement's file is called."""
_MARKS = tuple((f'"type":"{kind}"'.encode(), kind) for kind in STATEMENTS)
_SHA256 = re.compile(r"(?:sha256:)?([0-9a-f]{64})")

Sign = Callable[[bytes], Awaitable[bytes]]
"""The raw Ed25519 signature over these bytes by the attester's key. Raises Unavailable."""


class SigningAttestor:
    """Makes the envelope of an entry's statement. `keyid` is that of the log's `trust` entry."""

    def __init__(self, origin: str, keyid: str, sign: Sign) -> None:
        self._origin = origin
        self._keyid = keyid
        self._sign = sign

    async def attest(self, index: int, entry: bytes) -> bytes:
        """The envelope; the same entry gives the same bytes. Raises Unavailable. Only for entries that `kind_of` names."""
        payload = statement(self._origin, index, entry)
        return envelope(payload, self._keyid, await self._sign(pae(PAYLOAD_TYPE, payload)))


def kind_of(entry: bytes) -> str | None:
    """The type of an entry that makes a statement, None for all others."""
    for mark, kind in _MARKS:
        if mark in entry and _decoded(entry).get("type") == kind:
            return kind
    return None


def path_of(index: int, kind: str) -> str:
    """Where the statement of an entry of this type lies, in the log's directory and in an export."""
    return f"{FOLDER}/{index}-{STATEMENTS[kind]}.dsse.json"


def statement(origin: str, index: int, entry: bytes) -> bytes:
    """The in-toto statement of a `training.completed` or `model.promoted` entry."""
    value = _decoded(entry)
    place: dict[str, canonical.Json] = {
        "name": ENTRY,
        "uri": f"{origin}#{index}",
        "digest": {"sha256": digest(entry).removeprefix("sha256:")},
    }
    made = _provenance if value["type"] == "training.completed" else _test_result
    subjects, predicate_type, predicate = made(value, value["facts"], place)
    return canonical.encode(
        {
            "_type": STATEMENT_TYPE,
            "subject": subjects or [place],  # in-toto asks for one; the entry itself where it names no artifact
            "predicateType": predicate_type,
            "predicate": predicate,
        }
    )


_Made = tuple[list[canonical.Json], str, canonical.Json]


def _provenance(entry: Mapping[str, Any], facts: Mapping[str, Any], place: canonical.Json) -> _Made:
    subjects = _artifacts({"adapter": facts.get("adapter"), "adapter-files": facts.get("tree")})
    metadata = {"invocationId": facts.get("order_id"), "finishedOn": entry.get("time")}
    measured = {name: facts[name] for name in ("metrics", "seconds", "energy_j", "energy_estimated") if name in facts}
    content = base64.b64encode(canonical.encode(measured)).decode()
    return (
        subjects,
        PROVENANCE,
        {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": _known(
                    {"tenant": entry.get("tenant"), "route": entry.get("route"), "order": facts.get("order_id")}
                ),
                "internalParameters": _known({"rows": facts.get("rows"), "cutoff_ms": facts.get("cutoff_ms")}),
                "resolvedDependencies": _artifacts({"dataset": facts.get("dataset")}),
            },
            "runDetails": {
                "builder": {"id": BUILDER},
                "metadata": _known(metadata),
                "byproducts": [place, {"name": "measured", "mediaType": "application/json", "content": content}],
            },
        },
    )


def _test_result(entry: Mapping[str, Any], facts: Mapping[str, Any], place: canonical.Json) -> _Made:
    judged = _known(
        {name: facts.get(name) for name in ("arena", "champion", "challenger", "pairs", "log_e", "approved_by")}
        | {"tenant": entry.get("tenant"), "route": entry.get("route"), "evaluation": facts.get("evaluation")}
    )
    content = base64.b64encode(canonical.encode(judged)).decode()
    return (
        _artifacts({"adapter": facts.get("adapter")}),
        TEST_RESULT,
        {
            "result": "PASSED",
            "configuration": [place, {"name": "arena", "mediaType": "application/json", "content": content}],
            "passedTests": ["paired-sequential-test"],
            "warnedTests": [],
            "failedTests": [],
        },
    )


def _artifacts(named: Mapping[str, Any]) -> list[canonical.Json]:
    """Resource descriptors of those that are SHA-256 digests."""
    found = {name: _SHA256.fullmatch(value) for name, value in named.items() if isinstance(value, str)}
    return [{"name": name, "digest": {"sha256": match[1]}} for name, match in found.items() if match is not None]


def _known(values: Mapping[str, Any]) -> dict[str, canonical.Json]:
    return {name: value for name, value in values.items() if value is not None}


def _decoded(entry: bytes) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", canonical.decode(entry))
