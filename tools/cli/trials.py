"""What `ratchet evidence check` tries and looks at, and what it says of each: data only."""

from dataclasses import dataclass
from typing import Literal

from schemas.compliance import AccessChecked, ConfigObserved

Kind = Literal["role", "transport", "principal", "config"]


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial. `passed` None: it could not be made, so nothing is known and nothing is published; that is no pass.

    `what` names it for ever; `detail` says what was seen, `fix` what to do where it did not pass.
    """

    kind: Kind
    what: str
    passed: bool | None
    detail: str
    fix: str = ""

    def as_json(self) -> dict[str, object]:
        return {
            "check": self.kind,
            "what": self.what,
            "passed": self.passed,
            "detail": self.detail,
            "fix": "" if self.passed else self.fix,
        }


def observation(trial: Trial, *, at_ms: int, by: str) -> AccessChecked | ConfigObserved | None:
    """The event that says it; None where nothing was learnt. Words for people stay here: they may name files and addresses."""
    if trial.passed is None:
        return None
    if trial.kind == "config":
        return ConfigObserved(at_ms=at_ms, what=trial.what, passed=trial.passed, by=by)
    return AccessChecked(at_ms=at_ms, check=trial.kind, what=trial.what, passed=trial.passed, by=by)
