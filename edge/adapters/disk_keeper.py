"""The disk tier as the supervisor holds it: locked for this gateway, in step with the journal's purges, purged durably.

One rule: workers read a tier only after `open` has returned, and a purge is acknowledged only after `purge` has: its
rows are gone with an fsync behind them, one for many purges.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edge.adapters.disk_changes import Changer
from edge.adapters.disk_place import Place, TierError, lock_tier
from edge.adapters.disk_room import Limits
from edge.adapters.disk_start import open_place, sweep_bodies, take_over
from edge.cache.purge import Numbered, PurgeLog


class TierKeeper:
    """One gateway's tier, between `open` and `close`. `said` is what the start has to tell, if anything."""

    def __init__(self, place: Place, limits: Limits, lock: int) -> None:
        self.said = place.said
        self._place = place
        self._limits = limits
        self._lock = lock
        self._changer = Changer(place, limits, durable=True)
        self._alone = threading.Lock()
        threading.Thread(target=self._sweep, name="disk-sweep", daemon=True).start()

    @classmethod
    def open(cls, path: Path, limits: Limits, purge_log: PurgeLog, history: str, lock: int | None = None) -> TierKeeper:
        """Lock and prepare the tier. `lock`: the open lock file, when a predecessor handed it over.

        Raises TierInUse where another gateway has the tier, TierError where it cannot be used.
        """
        if lock is None:
            lock = lock_tier(path)
        try:
            place = open_place(path, history)
            taken = take_over(place, limits, purge_log, history)
            return cls(replace(taken, said=taken.said or place.said), limits, lock)
        except (sqlite3.Error, OSError) as error:
            os.close(lock)
            raise TierError(f"disk cache {path}: {error}") from None
        except BaseException:
            os.close(lock)
            raise

    @property
    def lock(self) -> int:
        """The lock file's descriptor, for a successor."""
        return self._lock

    def purge(self, purges: Sequence[Numbered], at: float) -> list[set[tuple[int, int]]]:
        """Carry out purges in order, durably; returns, for each, (hash, variant) of what it removed that was usable.

        Blocking. Raises TierError.
        """
        try:
            with self._alone:
                return self._changer.purge(purges, at)
        except (sqlite3.Error, OSError) as error:
            raise TierError(f"disk cache {self._place.path}: {error}") from None

    def stats(self) -> dict[str, int]:
        """The tier's counts and sizes in bytes; only its budget when the index cannot be read."""
        try:
            with self._alone:
                facts = dict(self._changer.db.execute("SELECT name, value FROM facts").fetchall())
                (segments,) = self._changer.db.execute("SELECT count(*) FROM segments").fetchone()
                used = self._changer.room.used()
        except sqlite3.Error:
            return {"budget_bytes": self._limits.size}
        return {
            "objects": facts["objects"],
            "bytes": used,
            "budget_bytes": self._limits.size,
            "bodies_bytes": facts["bodies"],
            "segments": segments,
            "evicted": facts["evicted"],
        }

    def _sweep(self) -> None:
        try:
            sweep_bodies(self._place, self._limits)
        except (sqlite3.Error, OSError):
            pass  # what is left over is swept at another start

    def close(self) -> None:
        """Release the tier, so that another gateway can use it."""
        with self._alone:
            self._changer.close()
        os.close(self._lock)
