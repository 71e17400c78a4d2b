"""Listening sockets: bound, checked, adopted from whoever started the process, and passed between processes.

One rule: a socket that is bound here does not listen yet; that is for who accepts on it.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Iterable, Sequence

_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
MOST_FILES = 250  # in one message; the kernel takes 253


def bind(host: str, port: int, shared: bool = True) -> socket.socket:
    """A socket that does not listen yet; `shared`: several may be bound to one address. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def check_free(host: str, port: int, shared: bool = False) -> None:
    """Raises OSError when an address cannot be bound: SO_REUSEPORT alone would share it with a stranger."""
    bind(host, port, shared).close()


def bound_name(sock: socket.socket) -> str:
    """A socket's address, in the notation of the configuration."""
    found = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix:{found}"
    host, port = found[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def adopt(numbers: Iterable[int], stranger: Callable[[str], None]) -> list[socket.socket]:
    """Sockets that came with the process as open files. One that is no stream socket is told and left alone."""
    found = []
    for number in numbers:
        try:
            if not stat.S_ISSOCK(os.fstat(number).st_mode):
                raise OSError("no socket")
            sock = socket.socket(fileno=number)
        except OSError as error:
            stranger(f"file {number} that came with the process is no socket: {error}")
            continue
        if sock.family not in _FAMILIES or sock.type != socket.SOCK_STREAM:
            sock.detach()
            stranger(f"file {number} that came with the process is no TCP or Unix stream socket")
            continue
        os.set_inheritable(number, False)
        sock.setblocking(False)
        found.append(sock)
    return found


def send_sockets(channel: socket.socket, sockets: Sequence[socket.socket]) -> None:
    """Hand sockets to the process at the other end; raises OSError."""
    for at in range(0, len(sockets), MOST_FILES):
        part = sockets[at : at + MOST_FILES]
        socket.send_fds(channel, [len(part).to_bytes(1, "big")], [each.fileno() for each in part])


def receive_sockets(channel: socket.socket, count: int) -> list[socket.socket]:
    """Receive `count` sockets over a Unix socket. Raises OSError."""
    found: list[socket.socket] = []
    while len(found) < count:
        data, numbers, _, _ = socket.recv_fds(channel, 1, MOST_FILES)
        if not data:
            raise OSError("the sockets did not come")
        for number in numbers:
            os.set_inheritable(number, False)
            found.append(socket.socket(fileno=number))
    for each in found:
        each.setblocking(False)
    return found
