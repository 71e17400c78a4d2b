"""A server of the standard library in a thread: an origin for gateways that are other processes.

One rule: after `stop` its thread has ended and its port is free.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from kit.ports import LOOPBACK


class QuietHandler(BaseHTTPRequestHandler):
    """A handler that keeps its connections, writes no log, and takes a client that is gone for an end."""

    protocol_version = "HTTP/1.1"

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionError:
            self.close_connection = True

    def body(self) -> bytes:
        """The request's body, as long as it was announced."""
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def answer(self, status: int, fields: Mapping[str, str], body: bytes = b"") -> None:
        """A whole response; a 304 and the answer to a HEAD go without their body."""
        self.send_response(status)
        for name, value in fields.items():
            self.send_header(name, value)
        if status != 304 and "Content-Length" not in fields:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if status != 304 and self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


class ThreadedServer:
    """Serves on `port` of loopback until `stop`; by TLS with `context`."""

    def __init__(self, handler: type[BaseHTTPRequestHandler], context: ssl.SSLContext | None = None) -> None:
        self.handler = handler
        self._server = ThreadingHTTPServer((LOOPBACK, 0), handler)
        self.port = self._server.server_port
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def __enter__(self) -> ThreadedServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End it."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
