"""Loopback ports: free ones, taken ones, answering ones."""

import contextlib
import itertools
import secrets
import socket
import ssl

LOOPBACK = "127.0.0.1"
# Below what Linux, macOS and Windows give to outgoing connections and to whoever binds port 0: between here and the server's own bind
# nobody is given one of these by chance.
_FIRST, _COUNT = 16_384, 16_384
_turns = itertools.count(secrets.randbelow(_COUNT))  # two processes that ask at once are in different places


def free_ports(count: int) -> list[int]:
    """`count` different ports that were free a moment ago. A process is given none twice before it has been given all."""
    held: list[socket.socket] = []
    try:
        for turn in itertools.islice(_turns, _COUNT):
            if len(held) == count:
                break
            sock = socket.socket()
            held.append(sock)
            try:
                sock.bind((LOOPBACK, _FIRST + turn % _COUNT))
            except OSError:
                held.pop().close()
        else:
            raise OSError(f"{count} free ports were not found between {_FIRST} and {_FIRST + _COUNT - 1}")
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
