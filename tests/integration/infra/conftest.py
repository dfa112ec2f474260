"""The two stores that one contract runs on."""

import secrets
from collections.abc import AsyncIterator

import pytest

from infra.store import MemoryStore, Store
from infra.store_redis import RedisStore


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    """Either store, empty as far as the test's keys go."""
    if request.param == "memory":
        yield MemoryStore()
        return
    redis = RedisStore(request.getfixturevalue("redis_url"), timeout_s=1.0, prefix=f"test:{secrets.token_hex(4)}:")
    yield redis
    await redis.close()
