"""A TCP relay before a server, whose link a test may cut, slow down, or hold as a broken network does.

One rule: after `cut` nothing goes through, connections that were open included, until `mend`; after `hold` they stay
open and carry nothing. What `lose` swallows never arrives: such a connection is of no use after `mend` either.
"""

from __future__ import annotations

import select
import socket
import threading
from collections import deque
from time import monotonic

from kit.ports import LOOPBACK


class Relay:
    """Listens on `port` at once; `close` ends it."""

    def __init__(self, to_port: int) -> None:
        self._to = to_port
        self._listener = socket.create_server((LOOPBACK, 0), backlog=64)
        self.port = int(self._listener.getsockname()[1])
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._is_cut = self.is_held = self._closed = False
        self._holds_at = b""
        self._slow_s = 0.0
        self._loses = False
        self.lost: set[socket.socket] = set()
        self._late: deque[tuple[float, socket.socket, bytes]] = deque()  # when it goes on, to whom
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """Reset what is open, and refuse what is new."""
        self._is_cut = True

    def hold(self) -> None:
        """Let nothing through, and end nothing."""
        self.is_held = True

    def hold_at(self, words: bytes) -> None:
        """Hold from when somebody asks for this, which is let through by `mend`."""
        self._holds_at = words

    def lose(self) -> None:
        """Swallow whatever comes, as a network does that loses packets; connections stay open."""
        self._loses = True

    def slow(self, seconds: float) -> None:
        """Pass everything on so much later, both ways."""
        self._slow_s = seconds

    def mend(self, hold_at: bytes = b"") -> None:
        """As before; or but for `hold_at`, which whoever comes back at once may ask for first."""
        self._holds_at = hold_at
        self._slow_s, self._loses = 0.0, False
        self._is_cut = self.is_held = False

    def close(self) -> None:
        """End everything."""
        self._closed = True
        self._thread.join(5)

    def _run(self) -> None:
        while not self._closed:
            if self._is_cut:
                self._end_all()
            watched = [self._listener] if self.is_held else [self._listener, *self._pairs]
            ready, _, _ = select.select(watched, [], [], 0.01)
            while self._late and self._late[0][0] <= monotonic():
                _, peer, data = self._late.popleft()
                self._send(peer, data)
            for sock in ready:
                if sock is self._listener:
                    self._accept()
                elif sock in self._pairs:
                    self._pass_on(sock)
        self._end_all()
        self._listener.close()

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        try:
            server = None if self._is_cut else socket.create_connection((LOOPBACK, self._to), 1)
        except OSError:
            server = None
        if server is None:
            client.close()
            return
        self._pairs[client], self._pairs[server] = server, client

    def _pass_on(self, sock: socket.socket) -> None:
        peer = self._pairs[sock]
        try:
            if self._holds_at and self._holds_at in sock.recv(262144, socket.MSG_PEEK):
                self.is_held = True
                return
            data = sock.recv(262144)
        except OSError:
            data = b""  # reset: both ends go
        if not data:
            self._end(sock)
        elif self._loses or sock in self.lost:
            self.lost |= {sock, peer}
        elif self._slow_s or self._late:
            self._late.append((monotonic() + self._slow_s, peer, data))
        else:
            self._send(peer, data)

    def _send(self, peer: socket.socket, data: bytes) -> None:
        try:
            if peer in self._pairs:
                peer.sendall(data)
        except OSError:
            self._end(peer)

    def _end(self, sock: socket.socket) -> None:
        peer = self._pairs.pop(sock)
        self._pairs.pop(peer, None)
        self.lost -= {sock, peer}
        sock.close()
        peer.close()

    def _end_all(self) -> None:
        for sock in list(self._pairs):
            if sock in self._pairs:
                self._end(sock)
