"""The model outside: a stand-in over HTTP that says back what it was told, and remembers it. So the demonstration can prove what left."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tools.stack.ports import LOOPBACK

LONGEST = 1 << 20


class Provider:
    """Speaks OpenAI's interface on loopback. `seen`: every text that reached it, by the model that was asked, in order."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self._server = ThreadingHTTPServer((LOOPBACK, 0), _handler(self.seen))
        self._thread = threading.Thread(target=self._server.serve_forever, name="provider", daemon=True)

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self._server.server_address[1]}/v1"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def asked(self, model: str) -> list[str]:
        """What that model was told; probes are not counted."""
        return [text for name, text in self.seen if name == model and text != "probe"]


def answer(text: str) -> str:
    """What it says to a text: it repeats it, as a model might."""
    return f"Noted: {text}"


def _handler(seen: list[tuple[str, str]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = min(int(self.headers.get("content-length", "0")), LONGEST)
            asked: dict[str, Any] = json.loads(self.rfile.read(length))
            text = str(asked["messages"][-1]["content"])
            seen.append((str(asked["model"]), text))
            said = answer(text)
            body = json.dumps(
                {
                    "model": asked["model"],
                    "choices": [
                        {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
                    ],
                    "usage": {"prompt_tokens": len(text.split()), "completion_tokens": len(said.split())},
                }
            ).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the name is the base class's
            """Nothing is logged: what comes is somebody's text."""

    return Handler
