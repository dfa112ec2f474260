"""The command line in this process; a broker's first answer over TLS, without a broker."""

import socket
import ssl
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tools.stack.tls import ensure_certificates

VERSIONS = struct.pack(
    ">iihi", 10, 1, 0, 0
)  # size; correlation 1, no error, no versions: what is looked at is in front


@pytest.fixture
def tls_broker(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address of what answers every request over TLS as a broker answers ApiVersions, and the authority that signed it."""
    made = ensure_certificates(tmp_path / "tls")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.broker)

    def serve() -> None:
        while True:
            try:
                connection, _ = door.accept()
            except OSError:  # the door was closed: the test is over
                return
            with suppress(OSError), connection, context.wrap_socket(connection, server_side=True) as inside:
                if inside.recv(65536):
                    inside.sendall(VERSIONS)

    with socket.create_server(("127.0.0.1", 0)) as door:
        host, port = door.getsockname()
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"{host}:{port}", made.authority
        door.shutdown(socket.SHUT_RDWR)
    thread.join()


@pytest.fixture
def cli(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """`ratchet …` in this process: exit code, answers, faults. The state folder is the test's."""
    from tools.ratchet import main

    for name in ("KAFKA_BOOTSTRAP", "RATCHET_SECRETS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RATCHET_STATE_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ratchet", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run
