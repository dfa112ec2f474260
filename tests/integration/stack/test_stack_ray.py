"""The stack's Ray head: joined with its token, on loopback only."""

from pathlib import Path

import psutil

from infra.cluster import connect, disconnect
from tools.stack.ray import ensure_token


def test_joined_and_kept_to_loopback(ray_address: str) -> None:
    """A process prepared for it joins the head, sees its logical CPUs, and nothing of it listens on another address."""
    import ray

    connect(ray_address)
    try:
        assert ray.cluster_resources()["CPU"] == 8
        heads = [p for p in psutil.Process().children() if "--head" in p.cmdline()]
        assert len(heads) == 1
        family = [heads[0], *heads[0].children(recursive=True)]
        hosts = {c.laddr.ip for p in family for c in p.net_connections() if c.status == psutil.CONN_LISTEN}
        assert hosts
        assert hosts <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    finally:
        disconnect()


def test_token_is_made_once_and_private(tmp_path: Path) -> None:
    """The head's token is made at first use, readable by its owner only, and stays."""
    file = ensure_token(tmp_path / "deep" / "ray-token")
    first = file.read_bytes()
    assert len(first) == 64
    assert file.stat().st_mode & 0o077 == 0
    assert ensure_token(file).read_bytes() == first
