"""A broker's first answer over TLS, without a broker."""

import socket
import ssl
import struct
import threading
from collections.abc import Iterator
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
