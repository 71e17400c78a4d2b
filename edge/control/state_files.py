"""Files and folders that the gateway owns: whose they must be, and that nothing is reached through them.

One rule: what is opened is a plain file of this very name. A symbolic link is never followed (its target may be
anybody's), a FIFO or device is never waited on, and a folder into which everybody may put files is not used.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def open_plain(path: Path, flags: int, mode: int = 0o600) -> int:
    """A descriptor of a plain file. Raises OSError whose text says what it is instead."""
    try:
        found = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, mode)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "is a symbolic link") from None
        raise
    if not stat.S_ISREG(os.fstat(found).st_mode):
        os.close(found)
        raise OSError(errno.EINVAL, "is not a plain file")
    return found


def refuse_link(path: Path) -> None:
    """For a file that a library opens: raises OSError when the name is there and no plain file."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        raise OSError(errno.ELOOP, "is a symbolic link" if stat.S_ISLNK(mode) else "is not a plain file")


def own_folder(path: Path) -> None:
    """Make the folder, for its owner alone, or take the one that is there. OSError when others could change it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.stat()
    if found.st_uid not in (0, os.geteuid()):
        raise OSError(errno.EPERM, f"belongs to another user (uid {found.st_uid})")
    if found.st_mode & stat.S_IWOTH:
        raise OSError(errno.EPERM, f"everybody may write in it (mode {stat.S_IMODE(found.st_mode):04o}; chmod o-w)")
