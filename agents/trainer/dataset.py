"""A data set as files: a line per row, and a manifest that says where each came from.

1. A row with a subject is sealed under that subject's key for rows: erased with the key, wherever copies of the files lie. A row without
   one stands there in plain.
2. The same rows under the same keys give the same bytes, so a repeated job names the same data set.
3. The manifest and the names of subjects stay readable: pseudonyms, ids of requests and decisions, counts. No text is among them.
"""

import base64
import hmac
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agents.rules.curation import Dataset, Row
from infra.sealing import NONCE_BYTES, open_sealed, seal
from schemas import canonical
from schemas.errors import Refused, SubjectErased
from schemas.events import TrainingOrdered

PARTS: Final = ("train", "validation", "test")
Whose = tuple[str, int, int]
"""A subject, and the partition and offset of its request."""


def whose(row: Row) -> Whose | None:
    """By whose key a row is sealed; None: it has no subject."""
    return None if row.subject is None else (row.subject, row.partition, row.offset)


def write(folder: Path, dataset: Dataset, order: TrainingOrdered, keys: Mapping[Whose, bytes]) -> Path:
    """The files, in a folder that is made for them. `keys`: of each row that has a subject."""
    folder.mkdir(parents=True)
    for part, rows in zip(PARTS, (dataset.train, dataset.validation, dataset.test), strict=True):
        lines = (json.dumps(_line(order.tenant, row, keys)) for row in rows)
        (folder / f"{part}.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    manifest = {
        "order": order.order_id,
        "tenant": order.tenant,
        "cases": {"partition": order.cases_partition, "first": order.cases_first, "last": order.cases_last},
        "counts": dict(dataset.counts),
        "cutoff_ms": dataset.cutoff_ms,
        "rows": {row.request_id: row.decision_id for row in dataset.rows},
    }
    text = json.dumps(manifest, indent=1, sort_keys=True)
    (folder / "manifest.json").write_text(text + "\n", encoding="utf-8")
    return folder


@dataclass(frozen=True, slots=True)
class Kept:
    """A row as it was kept. `text` and `label` are None where its subject is erased."""

    part: str
    request_id: str
    subject: str | None
    text: str | None
    label: str | None


Opens = Callable[[Whose], bytes]
"""The key of a subject's rows. Raises SubjectErased where there is none any more."""


def read(folder: Path, key_of: Opens) -> Iterator[Kept]:
    """The rows of a data set, opened where they may be. Raises Refused naming file and line where one is no row or does not open."""
    tenant = str(json.loads((folder / "manifest.json").read_text(encoding="utf-8")).get("tenant", ""))
    for part in PARTS:
        with (folder / f"{part}.jsonl").open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield _kept(tenant, part, json.loads(line), key_of)
                except (KeyError, TypeError, ValueError) as exc:
                    raise Refused(
                        f"{part}.jsonl line {number} is no row; accepted: text, label and request_id, or these sealed",
                        kind="dataset",
                    ) from exc
                except SubjectErased:
                    raise
                except Refused as exc:
                    raise Refused(f"{part}.jsonl line {number}: {exc}", kind=exc.kind) from exc


def _line(tenant: str, row: Row, keys: Mapping[Whose, bytes]) -> dict[str, Any]:
    found = whose(row)
    if found is None:
        return {"text": row.text, "label": row.label, "request_id": row.request_id}
    data = canonical.encode({"text": row.text, "label": row.label})
    key, aad = keys[found], _belonging(tenant, row.request_id)
    # A digest, under the same key, of all that is sealed: it comes again only with the very same row.
    nonce = hmac.digest(key, b"nonce\x1f" + len(aad).to_bytes(8, "big") + aad + data, "sha256")[:NONCE_BYTES]
    return {
        "request_id": row.request_id,
        "subject": row.subject,
        "partition": row.partition,
        "offset": row.offset,
        "sealed": base64.b64encode(seal(key, data, aad, nonce)).decode(),
    }


def _kept(tenant: str, part: str, line: Mapping[str, Any], key_of: Opens) -> Kept:
    request_id = str(line["request_id"])
    if "sealed" not in line:
        return Kept(part, request_id, None, str(line["text"]), str(line["label"]))
    subject = str(line["subject"])
    try:
        key = key_of((subject, int(line["partition"]), int(line["offset"])))
    except SubjectErased:
        return Kept(part, request_id, subject, None, None)
    try:
        sealed = base64.b64decode(line["sealed"], validate=True)
    except ValueError:
        sealed = b""
    row: Any = canonical.decode(open_sealed(key, sealed, _belonging(tenant, request_id)))
    return Kept(part, request_id, subject, str(row["text"]), str(row["label"]))


def _belonging(tenant: str, request_id: str) -> bytes:
    return canonical.encode({"what": "row/1", "tenant": tenant, "request_id": request_id})
