"""The base of every payload: what all events say, and the registry from type name to class."""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

TYPE_PREFIX = "ratchet."
TYPE_SUFFIX = ".v1"
REGISTRY: dict[str, type["Payload"]] = {}
ID_PATTERN = r"^[A-Za-z0-9._-]{1,64}$"
TOPIC_PATTERN = r"^[A-Za-z0-9._-]{1,249}$"


class Strict(BaseModel):
    """A part that people write. Frozen; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)


class Payload(BaseModel):
    """One event's data. A concrete class sets `TYPE` (`request.submitted`) and `TOPIC` (`requests`) once.

    Frozen. Unknown fields are ignored between our agents (so that a newer writer is readable), refused from people
    and upstream (`Incoming`).
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, hide_input_in_errors=True)

    TYPE: ClassVar[str] = ""
    TOPIC: ClassVar[str] = ""

    tenant: str = Field(default="default", pattern=ID_PATTERN)
    at_ms: int = Field(ge=0, lt=1 << 53, description="Event time, Unix epoch milliseconds.")

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if cls.TYPE and "TYPE" in cls.__dict__:
            if cls.TYPE in REGISTRY:
                raise TypeError(f"two payload classes say TYPE {cls.TYPE!r}")
            REGISTRY[cls.TYPE] = cls

    @classmethod
    def ce_type(cls) -> str:
        """The CloudEvents type: `ratchet.<TYPE>.v1`."""
        return TYPE_PREFIX + cls.TYPE + TYPE_SUFFIX

    def event_key(self) -> str:
        """The record key. Every concrete family defines it."""
        raise TypeError(f"{type(self).__name__} has no event key")


class Incoming(Payload):
    """What people and upstream send: an unknown field is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)


class RouteEvent(Payload):
    """Keyed by route."""

    route: str = Field(pattern=ID_PATTERN)

    def event_key(self) -> str:
        return self.route


class RequestEvent(Payload):
    """Keyed by request id."""

    route: str = Field(pattern=ID_PATTERN)
    request_id: str = Field(pattern=ID_PATTERN)

    def event_key(self) -> str:
        return self.request_id


class DerivedEvent(RequestEvent):
    """An event about a request, made by an agent: it names where the request lies."""

    request_partition: int = Field(ge=0)
    request_offset: int = Field(ge=0)
    request_at_ms: int = Field(default=0, ge=0, description="The request's event time; 0 where it is not known.")
    subject: str | None = Field(default=None, description="Whose data it is: a pseudonym under the tenant's key.")
