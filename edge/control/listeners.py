"""The listening sockets: held by the supervisor, handed to its workers, given on to a successor.

    configuration ─► places ─► a socket for each worker (SO_REUSEPORT), or one that all share (given by systemd; Unix)

One rule: a socket that still has a place in the configuration is never closed, whatever becomes of the worker that
accepts on it: what has connected to it waits for the next one. The workers call listen(2), so that nobody is let in
before there is somebody to serve. The file of a Unix socket is removed by the program that made it, or its successor.
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edge.adapters.sockets import bind, check_free
from edge.adapters.unix_sockets import SocketFile, unix_socket
from edge.config.listening import places
from edge.config.loader import Listen
from edge.config.types import UNIX, Address, UnixAddress
from edge.errors import EdgeError

Bound = tuple[str, socket.socket]  # a listener's name (`config.listening`), and a socket for it
ALONE = "admin "  # before the names of the supervisor's own


class CannotListen(EdgeError):
    """An address cannot be had; one clear line."""


@dataclass(slots=True)
class HeldListener:
    """One address. `shared`: all workers accept on its one socket. `file` is of a Unix socket that is ours."""

    address: Address | UnixAddress
    sockets: list[socket.socket] = field(default_factory=list)
    shared: bool = False
    file: SocketFile | None = None

    def of(self, index: int) -> socket.socket:
        """The socket of a worker; the one that takes over from another has its number plus theirs."""
        return self.sockets[0 if self.shared else index % len(self.sockets)]

    def close(self) -> None:
        """Let go; who was handed one accepts on what waits."""
        file, self.file = self.file, None
        if file is not None:
            file.remove()
        for each in self.sockets:
            each.close()
        self.sockets.clear()


class Listeners:
    """All addresses of one gateway. `given` are sockets that came with the process: see `systemd` and `upgrade`."""

    def __init__(self, given: Iterable[Bound] = ()) -> None:
        self.found: dict[str, HeldListener] = {}
        self.alone: dict[str, socket.socket] = {}  # of the supervisor's own listeners
        self._given: dict[str, list[socket.socket]] = {}
        for name, each in given:
            self._given.setdefault(name, []).append(each)

    def open(
        self, name: str, address: Address | UnixAddress, count: int, beside: bool = False, mode: int = 0o660
    ) -> HeldListener:
        """Have an address, for so many workers; it is in use once it is `added`. Raises CannotListen.

        `beside`: workers that an earlier supervisor left behind still accept there.
        """
        given = self._given.pop(name, [])
        found = HeldListener(address, given[:count])
        for each in given[count:]:
            each.close()
        if given and not given[0].getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT):
            found.shared = len(found.sockets) < count
            return found
        try:
            if isinstance(address, UnixAddress):
                found.sockets.append(unix_socket(Path(address.path), beside, mode))
                found.shared, found.file = True, SocketFile(address.path)
                return found
            if not given:
                check_free(address.host, address.port, beside)
            while len(found.sockets) < count:
                port = found.sockets[0].getsockname()[1] if found.sockets else address.port
                found.sockets.append(bind(address.host, port))
        except OSError as error:
            found.close()
            raise CannotListen(f"{address}: cannot listen: {error.strerror or error}") from None
        return found

    def open_all(self, listen: Listen, count: int, beside: bool = False) -> dict[str, HeldListener]:
        """Those that are not open yet, all or none. Raises CannotListen."""
        opened: dict[str, HeldListener] = {}
        try:
            for name, address, _ in places(listen):
                if name not in self.found:
                    opened[name] = self.open(name, address, count, beside, listen.socket_mode)
        except CannotListen:
            for each in opened.values():
                each.close()
            raise
        return opened

    def take(self, address: Address) -> socket.socket:
        """A socket of the supervisor's own, given or bound now; held on to here. Raises CannotListen."""
        self.alone[f"{ALONE}{address}"] = found = self._alone(address)
        return found

    def _alone(self, address: Address) -> socket.socket:
        given = self._given.pop(f"{ALONE}{address}", []) or self._given.pop(str(address), [])
        for each in given[1:]:
            each.close()
        if given:
            return given[0]
        try:
            return bind(address.host, address.port, shared=False)
        except OSError as error:
            raise CannotListen(f"{address}: cannot listen: {error.strerror}") from None

    def add(self, opened: Mapping[str, HeldListener]) -> None:
        """In use from now on."""
        self.found.update(opened)

    def keep(self, listen: Listen) -> None:
        """Close all others; of these the kernel holds so many connections until they are accepted."""
        wanted = {place.name for place in places(listen)}
        for name in wanted & self.found.keys():
            held = self.found[name]
            for sock in held.sockets:
                sock.listen(listen.backlog)
            if held.file is not None:
                held.file.allow(listen.socket_mode)
        for name in [name for name in self.found if name not in wanted]:
            self.found.pop(name).close()

    def of(self, index: int) -> list[Bound]:
        """What a worker accepts on."""
        return [(name, each.of(index)) for name, each in self.found.items()]

    def all(self) -> list[Bound]:
        """Every socket, for a successor."""
        shared = [(name, each) for name, listener in self.found.items() for each in listener.sockets]
        return [*shared, *self.alone.items()]

    def files(self) -> list[str]:
        """The names of Unix sockets whose files are ours."""
        return [name for name, listener in self.found.items() if listener.file is not None]

    def hand_over(self) -> None:
        """A successor accepts: the files are its own from now on."""
        for listener in self.found.values():
            listener.file = None

    def succeed(self, files: Collection[str]) -> None:
        """The program before has handed over: those files are ours now, or are removed where they have no place."""
        for name in files:
            file = SocketFile(name.removeprefix(f"{UNIX}:"))
            if name in self.found:
                self.found[name].file = file
            else:
                file.remove()

    def close(self) -> None:
        """Let go of everything, also of what was given and has no place."""
        for listener in self.found.values():
            listener.close()
        for each in (*self.alone.values(), *(sock for given in self._given.values() for sock in given)):
            each.close()
        self.alone.clear()
        self._given.clear()
