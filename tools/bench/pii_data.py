"""Texts with labelled spans, in presidio-research's format, and which half of them was tuned on."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from schemas.errors import Refused
from schemas.findings import Kind

EIGHT = (Kind.EMAIL, Kind.CARD, Kind.PHONE, Kind.IBAN, Kind.SSN, Kind.IP, Kind.DOMAIN, Kind.DATE)
GATE = frozenset(EIGHT[:6])
# Labels of presidio-research, those of its older files and of its users among them.
LABELS: Mapping[str, Kind] = {
    "EMAIL_ADDRESS": Kind.EMAIL,
    "EMAIL": Kind.EMAIL,
    "CREDIT_CARD": Kind.CARD,
    "CREDIT_CARD_NUMBER": Kind.CARD,
    "PHONE_NUMBER": Kind.PHONE,
    "PHONE": Kind.PHONE,
    "IBAN_CODE": Kind.IBAN,
    "IBAN": Kind.IBAN,
    "US_SSN": Kind.SSN,
    "SSN": Kind.SSN,
    "IP_ADDRESS": Kind.IP,
    "IP": Kind.IP,
    "DOMAIN_NAME": Kind.DOMAIN,
    "DOMAIN": Kind.DOMAIN,
    "URL": Kind.DOMAIN,
    "DATE_TIME": Kind.DATE,
    "DATE": Kind.DATE,
    "BIRTHDAY": Kind.DATE,
    "DATE_OF_BIRTH": Kind.DATE,
}
_SHOWN = 5


class _Span(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    entity_type: str
    start_position: int = Field(ge=0)
    end_position: int


class _Record(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    full_text: str
    spans: tuple[_Span, ...] = ()


_RECORDS = TypeAdapter(tuple[_Record, ...])


@dataclass(frozen=True, slots=True)
class Labelled:
    """A text and what stands where in it: of the eight kinds, and how many labels of others."""

    text: str
    gold: tuple[tuple[Kind, int, int], ...]
    others: tuple[str, ...]

    @property
    def tuned(self) -> bool:
        """Was its half of every file looked at while the detectors were made? A function of the text alone."""
        return hashlib.sha256(self.text.encode("utf-8", "surrogatepass")).digest()[0] % 2 == 0

    @property
    def clean(self) -> bool:
        """Has it nothing that the gate looks for?"""
        return not any(kind in GATE for kind, _, _ in self.gold)


def read(path: Path) -> tuple[Labelled, ...]:
    """A file's texts. Raises `Refused` for a file that is none of this format, naming the records and fields."""
    try:
        records = _RECORDS.validate_json(path.read_bytes())
    except OSError as fault:
        raise Refused(f"--data: {path}: {fault.strerror}", kind="usage") from fault
    except ValidationError as fault:
        places = [
            ".".join(map(str, error["loc"])) + ": " + error["msg"]
            for error in fault.errors(include_input=False)[:_SHOWN]
        ]
        raise Refused(
            f"--data: {path}: {'; '.join(places)}; accepted: a JSON list of {{full_text, spans: [{{entity_type, start_position, "
            "end_position}]}",
            kind="usage",
        ) from fault
    outside = [
        f"{index}.spans" for index, one in enumerate(records)
        for span in one.spans if not span.start_position <= span.end_position <= len(one.full_text)
    ]  # fmt: skip
    if outside or not records:
        raise Refused(
            f"--data: {path}: {', '.join(outside[:_SHOWN]) or 'no text'}; accepted: at least one text, spans inside their texts",
            kind="usage",
        )
    return tuple(_labelled(record) for record in records)


def _labelled(record: _Record) -> Labelled:
    spans = [span for span in record.spans if span.start_position < span.end_position]  # generators leave empty ones
    gold = [
        (LABELS[span.entity_type], span.start_position, span.end_position)
        for span in spans
        if span.entity_type in LABELS
    ]
    others = [span.entity_type for span in spans if span.entity_type not in LABELS]
    return Labelled(record.full_text, tuple(gold), tuple(others))


def halves(texts: Sequence[Labelled]) -> dict[str, tuple[Labelled, ...]]:
    """The half that was tuned on and the half that was held out."""
    return {
        "tuned": tuple(text for text in texts if text.tuned),
        "held_out": tuple(text for text in texts if not text.tuned),
    }
