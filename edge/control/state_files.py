"""Opening files that the gateway owns, in folders where others may have put something of the same name.

One rule: what is opened is a plain file of this very name. A symbolic link is never followed (its target may be
anybody's), and a FIFO or device is never waited on. (`edge check` warns of a folder that everybody may write to.)
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
