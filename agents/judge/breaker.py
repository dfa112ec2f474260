"""The breaker: instant, on the last answers of one arm, without any statistical claim. It stops or rolls back, it never promotes. Pure."""

from pydantic import BaseModel, ConfigDict

from agents.rules.detector import Detector
from schemas.routes import JudgeSettings

FAST, SLOW, FAILED = "0", "1", "2"
_P95 = 0.05  # of the answers may be slower than the 95th percentile
_ABOVE = 0.01  # p0 of the detector: this much above the old champion's rate of wrong answers


class Breaker(BaseModel):
    """Watches `arm`. `answers`: a letter each, `grades`: thousandths of the closed ones. `base_grade`: the old champion's mean.

    `detector`: after a promotion, the rate of wrong answers without any pairs.
    """

    model_config = ConfigDict(frozen=True)

    arm: str
    x0_us: int
    base_grade: int | None = None
    answers: str = ""
    grades: tuple[int, ...] = ()
    detector: Detector | None = None

    def answered(self, settings: JudgeSettings, *, ok: bool, latency_us: int) -> "Breaker":
        """After one answer of the arm."""
        slow = latency_us > (1.0 + settings.breaker_latency) * self.x0_us
        letter = FAILED if not ok else SLOW if slow else FAST
        return self.model_copy(update={"answers": (self.answers + letter)[-settings.breaker_window :]})

    def graded(self, settings: JudgeSettings, grade: int) -> "Breaker":
        """After one closed case whose served answer has a grade, 0..1000."""
        changes: dict[str, object] = {"grades": (*self.grades, grade)[-settings.breaker_window :]}
        if self.detector is not None:
            changes["detector"] = self.detector.add((1000 - grade) / 1000)
        return self.model_copy(update=changes)

    def detecting(self) -> "Breaker":
        """With a detector armed a hundredth above the old champion's rate of wrong answers; without where that is not known."""
        if self.base_grade is None:
            return self
        p0 = (1000 - self.base_grade) / 1000 + _ABOVE
        return self.model_copy(update={"detector": Detector.at(p0) if 0.0 < p0 < 1.0 else None})

    def tripped(self, settings: JudgeSettings) -> str:
        """Why it has tripped, empty while it is quiet."""
        window = settings.breaker_window
        failed = self.answers.count(FAILED)
        if failed > settings.breaker_error * window:
            return f"errors: {failed} of the last {len(self.answers)} answers failed"
        slow = self.answers.count(SLOW)
        if slow > _P95 * window:
            return f"latency: {slow} of the last {len(self.answers)} answers took {1 + settings.breaker_latency:g} times x0"
        if self.base_grade is not None and len(self.grades) == window:
            least = self.base_grade - 1000 * settings.breaker_quality
            if sum(self.grades) < least * window:
                now, before = sum(self.grades) / window / 1000, self.base_grade / 1000
                return f"quality: {now:.3f} over the last {window}, the old champion had {before:.3f}"
        if self.detector is not None and self.detector.alarmed():
            return f"quality: the detector's alarm over {self.detector.n} graded answers"
        return ""
