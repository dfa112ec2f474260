"""ACLs and SCRAM users of a cluster, by the protocol's own requests: aiokafka's admin has no calls for them.

Passwords go to the broker salted (RFC 5802, as `kafka-configs` does), never on a command line.
"""
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportAttributeAccessIssue=false, reportPrivateUsage=false, reportArgumentType=false, reportCallIssue=false
# pyright: reportMissingTypeArgument=false, reportUntypedBaseClass=false, reportIncompatibleVariableOverride=false, reportIncompatibleMethodOverride=false
# pyright: reportAssignmentType=false
# aiokafka ships no types.

import hashlib
import secrets
from collections.abc import Collection, Mapping
from typing import Any, Self, cast

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import for_code
from aiokafka.protocol.admin import (
    CreateAclsRequest_v1,
    DeleteAclsRequest_v1,
    DescribeAclsRequest,
)
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    CompactArray,
    CompactBytes,
    CompactString,
    Int8,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)

from streams.acl import Acl, Operation, Pattern, Resource, Right
from streams.kafka_clients import close, start
from streams.kafka_edge import denied, quiet_client_logs, starting, translated
from streams.kafka_settings import REQUEST_TIMEOUT_MS
from streams.port import Rejected
from streams.security import Security

ITERATIONS = 8192
SCRAM_SHA_512 = 2
RESOURCES: Mapping[Resource, int] = {"topic": 2, "group": 3, "cluster": 4, "transactional-id": 5}
PATTERNS: Mapping[Pattern, int] = {"literal": 3, "prefixed": 4}
OPERATIONS: Mapping[Operation, int] = {"read": 3, "write": 4, "describe": 8, "describe-configs": 10}
ANY, ALLOW, ANYWHERE = 1, 3, "*"
NAME = CompactString("utf-8")


def salted(password: str, salt: bytes) -> bytes:
    """What SCRAM-SHA-512 keeps of a password (Hi() of RFC 5802)."""
    return hashlib.pbkdf2_hmac("sha512", password.encode(), salt, ITERATIONS)


class _CreateAcls(Request[CreateAclsRequest_v1]):
    """Many at once: aiokafka's own request takes one."""

    API_KEY = 30

    def __init__(self, rows: list[tuple[object, ...]]) -> None:
        self.rows = rows

    def build(self, request_struct_class: Any) -> Any:
        return request_struct_class(self.rows)


class _DeleteAcls(Request[DeleteAclsRequest_v1]):
    API_KEY = 31

    def __init__(self, rows: list[tuple[object, ...]]) -> None:
        self.rows = rows

    def build(self, request_struct_class: Any) -> Any:
        return request_struct_class(self.rows)


class _AlterUsersResponse(Response):
    API_KEY = 51
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "results",
            CompactArray(("user", NAME), ("error_code", Int16), ("error_message", NAME), ("tags", TaggedFields)),
        ),
        ("tags", TaggedFields),
    )


class _AlterUsers0(RequestStruct):
    API_KEY = 51
    API_VERSION = 0
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _AlterUsersResponse
    SCHEMA = Schema(
        ("deletions", CompactArray(("name", NAME), ("mechanism", Int8), ("tags", TaggedFields))),
        (
            "upsertions",
            CompactArray(
                ("name", NAME),
                ("mechanism", Int8),
                ("iterations", Int32),
                ("salt", CompactBytes),
                ("salted_password", CompactBytes),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _AlterUsers(Request[_AlterUsers0]):
    API_KEY = 51

    def __init__(self, deletions: list[tuple[object, ...]], upsertions: list[tuple[object, ...]]) -> None:
        self.deletions = deletions
        self.upsertions = upsertions

    def build(self, request_struct_class: Any) -> Any:
        return request_struct_class(self.deletions, self.upsertions, {})


class KafkaAccess:
    """`async with KafkaAccess(bootstrap, security) as access`: needs CLUSTER ALTER, reading ACLs CLUSTER DESCRIBE."""

    def __init__(self, bootstrap: str, security: Security) -> None:
        self.bootstrap = bootstrap
        self.security = security
        self._admin: Any = None

    async def __aenter__(self) -> Self:
        quiet_client_logs()
        self._admin = AIOKafkaAdminClient(
            bootstrap_servers=self.bootstrap,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            client_id="ratchet-access",
            **self.security.client(),
        )
        async with starting("reading rights", self.bootstrap, self.security):
            await start(self._admin)
        return self

    async def __aexit__(self, *_: object) -> None:
        await close(self._admin)

    async def acls(self) -> frozenset[Acl]:
        """Every ACL of the cluster that allows something from anywhere. What else there is, is told by `peculiar`."""
        return frozenset(_acl(*row) for row in await self._rows() if _plain(*row))

    async def peculiar(self) -> list[str]:
        """ACLs of a kind that we never make (denials, chosen hosts, other operations), in words."""
        return sorted(f"{row[3]} {row[5]} on {row[1]} from {row[4]}, permission {row[6]}"
                      for row in await self._rows() if not _plain(*row))  # fmt: skip

    async def allow(self, acls: Collection[Acl]) -> None:
        """Create ACLs; one that exists stays."""
        if acls:
            answer = await self._ask("create ACLs", _CreateAcls([(*_key(acl), ALLOW) for acl in sorted(acls)]))
            self._check("create ACLs", [row[:2] for row in answer.creation_responses])

    async def withdraw(self, acls: Collection[Acl]) -> None:
        """Delete exactly these ACLs."""
        if acls:
            answer = await self._ask("delete ACLs", _DeleteAcls([(*_key(acl), ALLOW) for acl in sorted(acls)]))
            self._check("delete ACLs", [row[:2] for row in answer.filter_responses])

    async def set_passwords(self, passwords: Mapping[str, str]) -> None:
        """Make the users or replace their passwords; connections that are open stay."""
        rows: list[tuple[object, ...]] = []
        for user, password in sorted(passwords.items()):
            salt = secrets.token_bytes(24)
            rows.append((user, SCRAM_SHA_512, ITERATIONS, salt, salted(password, salt), {}))
        answer = await self._ask("set passwords", _AlterUsers([], rows))
        self._check("set passwords", [(row[1], row[2]) for row in answer.results])

    async def drop_user(self, user: str) -> None:
        """Its connections end when they authenticate again; new ones are refused."""
        answer = await self._ask("drop a user", _AlterUsers([(user, SCRAM_SHA_512, {})], []))
        self._check(f"drop user {user}", [(row[1], row[2]) for row in answer.results])

    async def _rows(self) -> list[tuple[Any, ...]]:
        request = DescribeAclsRequest(ANY, None, ANY, None, None, ANY, ANY)
        answer = await self._ask("describe ACLs", request)
        self._check("describe ACLs", [(answer.error_code, answer.error_message)])
        return [(kind, name, pattern, *acl) for kind, name, pattern, rows in answer.resources for acl in rows]

    async def _ask(self, what: str, request: Any) -> Any:
        with translated(what, self.security):
            return await self._admin._send_request(request)  # noqa: SLF001  its public calls do not cover these requests

    def _check(self, what: str, results: Collection[tuple[int, str | None]]) -> None:
        for code, message in results:
            if code == 31:  # cluster authorisation
                raise denied(self.security, what, for_code(code)())
            if code:
                raise Rejected(f"{what}: {message or for_code(code).__name__}")


def _key(acl: Acl) -> tuple[object, ...]:
    right = acl.right
    return (
        RESOURCES[right.resource], right.name, PATTERNS[right.pattern], acl.principal, ANYWHERE, OPERATIONS[right.operation],
    )  # fmt: skip


def _plain(kind: int, _name: str, pattern: int, _principal: str, host: str, operation: int, permission: int) -> bool:
    known = kind in RESOURCES.values() and pattern in PATTERNS.values() and operation in OPERATIONS.values()
    return known and host == ANYWHERE and permission == ALLOW


def _acl(kind: int, name: str, pattern: int, principal: str, _host: str, operation: int, _permission: int) -> Acl:
    def word(table: Mapping[Any, int], code: int) -> Any:
        return next(text for text, number in table.items() if number == code)

    right = Right(
        cast("Resource", word(RESOURCES, kind)),
        name,
        cast("Operation", word(OPERATIONS, operation)),
        cast("Pattern", word(PATTERNS, pattern)),
    )
    return Acl(principal, right)
