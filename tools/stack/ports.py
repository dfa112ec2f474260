"""Loopback ports: free ones, taken ones, answering ones."""

import contextlib
import socket
import ssl

LOOPBACK = "127.0.0.1"


def free_ports(count: int) -> list[int]:
    """`count` different ports that were free a moment ago. Held open together, so that none is given twice."""
    held: list[socket.socket] = []
    try:
        for _ in range(count):
            sock = socket.socket()
            held.append(sock)
            sock.bind((LOOPBACK, 0))
        return [sock.getsockname()[1] for sock in held]
    finally:
        for sock in held:
            sock.close()


def taken(port: int, host: str = LOOPBACK) -> bool:
    """Whether some program listens on the port, so that a server of ours could not."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
        except OSError:
            return True
    return False


def ask(
    host: str,
    port: int,
    request: bytes,
    enough: int = 4,
    timeout_s: float = 2.0,
    context: ssl.SSLContext | None = None,
) -> bytes:
    """Send `request`, return what came back once it is at least `enough` bytes; b"" when nothing answers. `context`: over TLS."""
    try:
        with contextlib.ExitStack() as stack:
            sock = stack.enter_context(socket.create_connection((host, port), timeout=timeout_s))
            sock.settimeout(timeout_s)
            if context is not None:
                sock = stack.enter_context(context.wrap_socket(sock, server_hostname=host))
            sock.sendall(request)
            answer = b""
            while len(answer) < enough:
                chunk = sock.recv(65536)
                if not chunk:
                    return b""
                answer += chunk
            return answer
    except OSError:
        return b""


def listens(host: str, port: int, timeout_s: float = 2.0) -> bool:
    """Whether a connection is accepted."""
    try:
        with socket.create_connection((host, port), timeout=timeout_s):
            return True
    except OSError:
        return False
