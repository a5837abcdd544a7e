"""A proxy for an S3 server that makes requests fail as on a busy or broken store.

throttled      503 with SlowDown
reset          the connection is closed with a RST
slow           a second passes first
cut            half of the answer, then a reset
black hole     accepted, and never answered nor forwarded
late           held until `release`, then forwarded although the client has given up
unconditional  "created" is answered where the server refused to overwrite, as by stores that ignore If-None-Match
"""

import contextlib
import http.client
import http.server
import random
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http import HTTPStatus
from urllib.parse import urlsplit

SLOW_DOWN = (
    b'<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>'
)
FAULTS = ("throttled", "reset", "slow", "cut")
"""Those that are drawn at random: a client that tries again gets through."""
HELD_SECONDS = 600.0
"""Longest time for which a request is held."""


class FaultyProxy:
    """Forwards requests to `target`; a random fraction of them, `share`, gets a fault. The random seed is fixed."""

    def __init__(self, target: str) -> None:
        self.target = urlsplit(target)
        self.share = 0.0
        self.seen: Counter[str] = Counter()
        """Number of requests by fault; empty name: without a fault."""
        self.before: Callable[[str, str], None] = lambda method, path: None
        """Called with method and path before each forwarded request."""
        self.broken = False
        """Whether every request is throttled."""
        self.choose: Callable[[str, str], str] | None = None
        """Names the fault of a request by its method and path, in place of the random draw; empty name: none."""
        self._held = threading.Event()
        self._draw = random.Random(0)
        self._lock = threading.Lock()

    def draw(self, method: str, path: str) -> str:
        """The fault of the next request; empty: none."""
        with self._lock:
            if self.choose is not None:
                fault = self.choose(method, path)
                self.seen[fault] += 1
                return fault
            if self.broken:
                return "throttled"
            fault = self._draw.choice(FAULTS) if self._draw.random() < self.share else ""
            self.seen[fault] += 1
            return fault

    def hold(self) -> None:
        """Return when `release` is called."""
        self._held.wait(HELD_SECONDS)

    def release(self) -> None:
        """Forward the late requests and close the unanswered ones that are held now; later ones are held again."""
        held, self._held = self._held, threading.Event()
        held.set()

    @contextlib.contextmanager
    def running(self) -> Iterator[str]:
        """URL of the proxy while the body runs."""
        proxy = self

        class Handler(_Handler):
            owner = proxy

        server = _Server(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            server.server_close()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Says nothing of a client that went away: tests kill them."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(http.server.BaseHTTPRequestHandler):
    owner: FaultyProxy
    protocol_version = "HTTP/1.1"

    def _pass(self) -> None:
        body = self._body()
        fault = self.owner.draw(self.command, self.path)
        if fault == "throttled":
            return self._answer(503, [("Content-Type", "application/xml")], SLOW_DOWN)
        if fault == "reset":
            return self._reset()
        if fault in ("black hole", "late"):
            self.owner.hold()
        if fault == "black hole":
            return self._reset()
        if fault == "slow":
            time.sleep(1.0)
        self.owner.before(self.command, self.path)
        status, headers, data = self._ask(body)
        if fault == "unconditional" and status == HTTPStatus.PRECONDITION_FAILED:
            return self._answer(HTTPStatus.OK, [("ETag", '"0"')], b"")
        if fault == "cut" and self.command == "GET" and len(data) > 1:
            self._answer(status, headers, data, cut=True)
            return self._reset()
        return self._answer(status, headers, data)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _pass

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        """The server's reply; it gets the Host header that the client signed."""
        connection = http.client.HTTPConnection(self.owner.target.hostname, self.owner.target.port, timeout=60)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("connection", "expect"):
                    connection.putheader(name, value)
            connection.endheaders(body or None)
            reply = connection.getresponse()
            skipped = ("connection", "transfer-encoding", "content-length", "date", "server")
            headers = [(name, value) for name, value in reply.getheaders() if name.lower() not in skipped]
            if self.command == "HEAD" and (length := reply.getheader("Content-Length")):
                headers.append(("Content-Length", length))
            return reply.status, headers, reply.read()
        finally:
            connection.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes, cut: bool = False) -> None:
        with contextlib.suppress(ConnectionError):
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            if self.command != "HEAD":
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data[: len(data) // 2] if cut else data)
                self.wfile.flush()

    def _reset(self) -> None:
        """Close with a RST instead of a FIN."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def log_message(self, *_: object) -> None:
        """Write no log: tests read `seen`."""

    def finish(self) -> None:
        """A connection that was reset cannot be flushed."""
        with contextlib.suppress(OSError, ValueError):
            super().finish()
