"""Real servers for the integration tests, started once per run by the stack's own code. A server that does not start fails the test.

Ray reads its environment at import, so this file sets it before any test module is imported: loopback, and a token of the run's own.
"""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.settings import Settings, load, prepare_ray
from tools.stack.kafka import running_kafka
from tools.stack.ray import ensure_token, running_ray
from tools.stack.redis import running_redis
from tools.stack.vault import VaultServer, running_vault

_RUN = Path(tempfile.mkdtemp(prefix="ratchet-test-"))
_TOKEN = ensure_token(_RUN / "ray-token")
prepare_ray(Settings(ray_token_file=_TOKEN))


def pytest_unconfigure() -> None:
    """Leave nothing behind."""
    shutil.rmtree(_RUN, ignore_errors=True)


@pytest.fixture(scope="session")
def cache_dir() -> Path:
    """Where downloaded and built servers are kept."""
    return load().resolved().cache_dir


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> Iterator[str]:
    """The bootstrap address of a real single-node broker. It is shared: name topics and groups after the test."""
    with running_kafka(tmp_path_factory.mktemp("kafka"), cache_dir) as node:
        yield node.bootstrap


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real Redis. It is shared: name keys after the test."""
    with running_redis(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(scope="session")
def vault(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> Iterator[VaultServer]:
    """A real Vault server that the test may administer, seal and unseal. It is shared: leave it unsealed."""
    with running_vault(tmp_path_factory.mktemp("vault"), cache_dir) as server:
        yield server


@pytest.fixture(scope="session")
def ray_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real Ray head with eight logical CPUs. It is shared: name actors after the test."""
    with running_ray(tmp_path_factory.mktemp("ray"), _TOKEN) as address:
        yield address
