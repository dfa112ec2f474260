"""The three kinds of error, and who acts on each.

RatchetError
├── Refused      the sender is wrong: dead letter or `answer.refused`, with the field and what is accepted
└── Unavailable  the world is away: bounded retry, then deferred, then said

Anything else is ours: the process crashes, and the log makes restarting safe.
"""


class RatchetError(Exception):
    """Root of the errors that an agent may raise on purpose."""


class Refused(RatchetError):
    """The sender is wrong. The message names what was refused, where, and what would be accepted.

    `kind` is a short stable code for headers and metrics; `field` is the offending field's path, "" when there is none.
    The message never carries payload text: it goes into headers, logs and answers.
    """

    def __init__(self, message: str, *, kind: str = "refused", field: str = "", accepted: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.field = field
        self.accepted = accepted


class SubjectErased(Refused):
    """What is asked for was of a subject that is erased: no key opens it any more. `field` is the id of the erasure."""

    def __init__(self, message: str, *, erasure: str = "") -> None:
        super().__init__(message, kind="erased", field=erasure)


class Undecodable(Refused):
    """The record is not an event of a known type, or its payload is not valid for that type."""


class Unavailable(RatchetError):
    """The world is away. The caller may try again; `retry_after_s` is a hint, None when nothing is known."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
