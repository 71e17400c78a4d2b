"""How a command reaches an admin API: plain, by TLS, or by a Unix socket.

One rule: a certificate is checked, always: the one that the configuration names is expected as it is (the file is on
this machine, whatever name it is for), any other has to be good for the name that was given.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from typing import NamedTuple


class AdminTarget(NamedTuple):
    """Where an admin API listens, and how to speak to it. `pin`: the file with the certificate that it has to show."""

    host: str
    port: int
    tls: bool = False
    pin: str | None = None
    path: str | None = None  # of a Unix socket

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.path is not None else f"{self.host}:{self.port}"

    def connect(self, timeout_s: float | None) -> http.client.HTTPConnection:
        """A connection that opens when it is first used. Raises OSError then, of which an SSLError is one."""
        if self.path is not None:
            return _UnixConnection(self.path, timeout_s)
        if not self.tls:
            return http.client.HTTPConnection(self.host, self.port, timeout=timeout_s)
        if self.pin is None:
            return http.client.HTTPSConnection(self.host, self.port, timeout=timeout_s)
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # the pin is checked instead
        return _PinnedConnection(self.host, self.port, self.pin, context, timeout_s)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float | None) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class _PinnedConnection(http.client.HTTPSConnection):
    def __init__(self, host: str, port: int, pin: str, context: ssl.SSLContext, timeout_s: float | None) -> None:
        super().__init__(host, port, timeout=timeout_s, context=context)
        self._pin = pin

    def connect(self) -> None:
        super().connect()
        with open(self._pin, encoding="ascii", errors="replace") as file:
            text = file.read()
        end = "-----END CERTIFICATE-----"
        first = text[text.find("-----BEGIN CERTIFICATE-----") : text.find(end) + len(end)]
        assert isinstance(self.sock, ssl.SSLSocket)
        if self.sock.getpeercert(binary_form=True) != ssl.PEM_cert_to_DER_cert(first):
            self.close()
            raise ssl.SSLError(f"its certificate is not the one in {self._pin}")
