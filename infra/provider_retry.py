"""Whether and when a provider is asked once more. Pure: the time is passed in."""

from email.utils import parsedate_to_datetime

from infra.engine import Blameless
from infra.provider import Fault

LONGEST_RETRY_AFTER_S = 3_600.0


class RetryBudget:
    """A token bucket in tenths of a call: each call saves one tenth, a retry spends ten. So retries are at most a tenth of the calls.

    `saved` is what it starts with: 0 keeps the bound from the first call on. It holds at most ten retries.
    """

    MOST = 100

    def __init__(self, saved: int = 0) -> None:
        self._saved = saved

    def save(self) -> None:
        self._saved = min(self.MOST, self._saved + 1)

    def spend(self) -> bool:
        """Whether a retry may be made; then it is paid for."""
        if self._saved < 10:
            return False
        self._saved -= 10
        return True


def retry_after_s(value: str | None, now_ms: int) -> float | None:
    """Seconds that a Retry-After header asks for (RFC 9110, 10.2.3): a number of them, or a date. None for neither."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return min(float(text), LONGEST_RETRY_AFTER_S)
    try:
        due_s = parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
    return min(max(0.0, due_s - now_ms / 1000), LONGEST_RETRY_AFTER_S)


def wait_s_of(error: BaseException) -> float | None:
    """How long to wait before asking once more: 0 where nobody said, None: do not ask again."""
    if isinstance(error, Fault) and error.repeatable:
        return error.retry_after_s or 0.0
    if isinstance(error, Blameless):
        return error.retry_after_s  # a limit without a word on when it ends is not tried
    return None
