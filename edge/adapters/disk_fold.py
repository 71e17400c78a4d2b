"""The thread that folds the log of the disk tier's index in: of low priority, and without Python's lock while it works.

One rule: it is the longest piece of work that the tier does, so it is nobody's who may be waited for. On a core that
all share the kernel takes the core from it as soon as the loop has something to do. Where it does not keep up, or
fails, the log grows to its limit, and whoever commits then folds it in and is told why it cannot.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from threading import Event, Thread, get_native_id

from edge.adapters.disk_index import connect, fold_in
from edge.adapters.disk_place import Place

NICE = 10  # a tenth of the core where all of it is wanted


class Folder:
    """The checkpoint thread. `fold` can be called from any thread."""

    def __init__(self, place: Place) -> None:
        self._db = connect(place)
        self._wanted = Event()
        self._closing = False
        self._thread = Thread(target=self._run, name="disk-fold", daemon=True)
        self._thread.start()

    def fold(self) -> None:
        """Ask for a checkpoint soon."""
        self._wanted.set()

    def _run(self) -> None:
        with suppress(OSError):  # a sandbox that does not let it: as important as the others
            os.setpriority(os.PRIO_PROCESS, get_native_id(), NICE)
        while self._wanted.wait() and not self._closing:
            self._wanted.clear()
            with suppress(sqlite3.Error):  # see above
                fold_in(self._db)
        self._db.close()

    def close(self) -> None:
        """End the thread; what is in the log stays there."""
        self._closing = True
        self._wanted.set()
        self._thread.join(10.0)
