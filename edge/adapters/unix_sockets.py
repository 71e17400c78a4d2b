"""Unix sockets to listen on: made with their mode, put where a dead program left one, removed by whoever made them.

One rule: whoever connects finds the old socket or the new one, never none and never one of another mode: a socket is
made beside its place and moved there in one step. What is no socket, or somebody else's who lives, is left alone.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path


def unix_socket(path: Path, succeeds: bool = False, mode: int = 0o600) -> socket.socket:
    """A socket at a path, of this mode from the first moment; one that nobody listens on any more is replaced.

    `succeeds`: one that somebody listens on as well, in one step, so that there is always one. Raises OSError.
    """
    if path.exists() and not path.is_socket():
        raise OSError(errno.EEXIST, "there is a file, which is no socket")
    if not succeeds and _is_listened_on(path):
        raise OSError(errno.EADDRINUSE, "Address already in use")
    made, place = socket.socket(socket.AF_UNIX), path.with_name(f"{path.name}.new")
    before = os.umask(0o777 & ~mode)
    try:
        place.unlink(missing_ok=True)
        made.bind(str(place))
        os.rename(place, path)
        made.setblocking(False)
    except BaseException:
        made.close()
        raise
    finally:
        os.umask(before)
    return made


def _is_listened_on(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as asking:
        asking.setblocking(False)
        try:
            asking.connect(str(path))
        except BlockingIOError:  # so many wait that no more are let in
            return True
        except (ConnectionRefusedError, FileNotFoundError):  # its program has died; none there
            return False
    return True


class SocketFile:
    """The file of a socket, as it is now; whoever made it has one of these."""

    __slots__ = ("_is", "_path")

    def __init__(self, path: str) -> None:
        self._path = path
        self._is = _identity(path)

    def allow(self, mode: int) -> None:
        """Set the mode of the socket file."""
        with suppress(OSError):
            if stat.S_IMODE(os.stat(self._path).st_mode) != mode:
                os.chmod(self._path, mode)

    def remove(self) -> None:
        """Remove it, unless another one has taken its place."""
        if self._is is not None and _identity(self._path) == self._is:
            with suppress(OSError):
                os.unlink(self._path)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
