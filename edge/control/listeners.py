"""The listening sockets: held by the supervisor, handed to its workers, given on to a successor.

    configuration ─► places ─► a socket for each worker (SO_REUSEPORT), or one that all share (given by systemd; Unix)
    fewer workers   ─► the sockets of those that went are everybody's

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
    """An address cannot be bound; one clear line."""


@dataclass(slots=True)
class HeldListener:
    """One address. `shared`: all workers accept on all its sockets. `file` is of a Unix socket that is ours."""

    address: Address | UnixAddress
    sockets: list[socket.socket] = field(default_factory=list)
    workers: int = 1  # so many of the sockets are one worker's own, the others are everybody's
    shared: bool = False
    file: SocketFile | None = None

    def of(self, place: int) -> list[socket.socket]:
        """The sockets for a worker's place; for a place that is no more, another one's until it has ended."""
        own = [] if self.shared else [self.sockets[place % self.workers]]
        return [*own, *self.sockets[0 if self.shared else self.workers :]]

    def among(self, workers: int) -> HeldListener:
        """The same listener for another number of workers. Raises OSError."""
        address, first, sockets = self.address, self.sockets[0], list(self.sockets)
        if not isinstance(address, UnixAddress) and first.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT):
            try:
                while len(sockets) < workers:
                    sockets.append(bind(address.host, first.getsockname()[1]))
            except OSError:
                close_all(sockets[len(self.sockets) :])
                raise
        return HeldListener(address, sockets, workers, self.shared or len(sockets) < workers, self.file)

    def close(self) -> None:
        """Close the sockets. Workers that have a copy accept what waits."""
        file, self.file = self.file, None
        if file is not None:
            file.remove()
        for each in self.sockets:
            each.close()
        self.sockets.clear()


@dataclass(slots=True)
class Opened:
    """Listeners that are new, or for another number of workers than `before`, by name."""

    held: dict[str, HeldListener] = field(default_factory=dict)
    before: dict[str, HeldListener] = field(default_factory=dict)

    def of(self, place: int) -> list[Bound]:
        """The sockets on which the worker at this place accepts."""
        return bound_at(self.held, place)

    def close(self) -> None:
        """Close sockets that will not be used."""
        for name, each in self.held.items():
            if name in self.before:
                close_all(each.sockets[len(self.before[name].sockets) :])
            else:
                each.close()


def bound_at(listeners: Mapping[str, HeldListener], place: int) -> list[Bound]:
    """The sockets that a worker accepts on, by name; a name may occur several times."""
    return [(name, sock) for name, each in listeners.items() for sock in each.of(place)]


def close_all(sockets: Iterable[socket.socket]) -> None:
    """Close the sockets that no worker was given."""
    for each in sockets:
        each.close()


class Listeners:
    """All addresses of one gateway. `given` are sockets that came with the process: see `systemd` and `succession`."""

    def __init__(self, given: Iterable[Bound] = ()) -> None:
        self.found: dict[str, HeldListener] = {}
        self.alone: dict[str, socket.socket] = {}  # of the supervisor's own listeners
        self._given: dict[str, list[socket.socket]] = {}
        for name, each in given:
            self._given.setdefault(name, []).append(each)

    def open(
        self, name: str, address: Address | UnixAddress, workers: int, beside: bool = False, mode: int = 0o660
    ) -> HeldListener:
        """Have an address, for so many workers; it is in use once it is `added`. Raises CannotListen.

        `beside`: workers that an earlier supervisor left behind still accept there.
        """
        found = HeldListener(address, self._given.pop(name, []))
        try:
            if not found.sockets and isinstance(address, UnixAddress):
                found.sockets.append(unix_socket(Path(address.path), beside, mode))
                found.file = SocketFile(address.path)
            elif not found.sockets and isinstance(address, Address):
                check_free(address.host, address.port, beside)
                found.sockets.append(bind(address.host, address.port))
            return found.among(workers)
        except OSError as error:
            found.close()
            raise CannotListen(f"{address}: cannot listen: {error.strerror or error}") from None

    def open_all(self, listen: Listen, workers: int, beside: bool = False) -> Opened:
        """Open what is not open yet for this number of workers, all or nothing. Raises CannotListen."""
        opened = Opened()
        try:
            for name, address, _ in places(listen):
                there = self.found.get(name)
                if there is None:
                    opened.held[name] = self.open(name, address, workers, beside, listen.socket_mode)
                elif there.workers != workers:
                    opened.before[name], opened.held[name] = there, _among(name, there, workers)
        except CannotListen:
            opened.close()
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

    def add(self, opened: Opened) -> None:
        """Use these listeners from now on."""
        self.found.update(opened.held)

    def undo(self, opened: Opened) -> None:
        """Drop listeners that were opened and are not used."""
        for name in opened.held.keys() - opened.before.keys():
            del self.found[name]
        self.found.update(opened.before)
        opened.close()

    def keep(self, listen: Listen) -> None:
        """Close all others; of these the kernel holds so many connections until they are accepted."""
        wanted = {place.name for place in places(listen)}
        for name in wanted & self.found.keys():
            held = self.found[name]
            for sock in held.sockets:
                if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):  # or its worker has yet to come
                    sock.listen(listen.backlog)
            if held.file is not None:
                held.file.allow(listen.socket_mode)
        for name in [name for name in self.found if name not in wanted]:
            self.found.pop(name).close()

    def of(self, place: int) -> list[Bound]:
        """The sockets on which the worker at this place accepts."""
        return bound_at(self.found, place)

    def all(self) -> list[Bound]:
        """All sockets, for a successor."""
        shared = [(name, each) for name, listener in self.found.items() for each in listener.sockets]
        return [*shared, *self.alone.items()]

    def files(self) -> list[str]:
        """The paths of the Unix sockets that this gateway created."""
        return [name for name, listener in self.found.items() if listener.file is not None]

    def hand_over(self) -> None:
        """A successor accepts: the Unix sockets' files belong to it from now on."""
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
        """Close all sockets, also given ones that have no place."""
        for listener in self.found.values():
            listener.close()
        close_all((*self.alone.values(), *(sock for given in self._given.values() for sock in given)))
        self.alone.clear()
        self._given.clear()


def _among(name: str, held: HeldListener, workers: int) -> HeldListener:
    try:
        return held.among(workers)
    except OSError as error:
        raise CannotListen(f"{name}: cannot listen: {error.strerror or error}") from None
