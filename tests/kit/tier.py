"""What tests of the disk tier are made with: stored responses, a file layer that fails or stops, a tier in a folder."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from mmap import mmap
from pathlib import Path

from edge.adapters.disk_files import FileOps
from edge.adapters.disk_room import MIN_SIZE, Limits
from edge.adapters.disk_tier import DiskTier
from edge.cache.purge import Purge, PurgeKind, PurgeLog
from edge.cache.stored import Plan, Stored, build
from edge.cache.verdict import Source
from edge.http.message import Fields
from edge.http.ranges import ContentRange
from kit.waiting import until_blocking

NOW = 1_800_000_000.0
SMALL = Limits(MIN_SIZE)


def response(
    key: bytes,
    body: bytes = b"hello",
    *,
    vary: tuple[tuple[bytes, bytes | None], ...] = (),
    tags: frozenset[bytes] = frozenset(),
    part: ContentRange | None = None,
    received_at: float = NOW,
    lifetime_s: float = 3600.0,
) -> Stored:
    """A stored response."""
    plan = Plan(
        key=key,
        status=200 if part is None else 206,
        reason=b"OK",
        fields=Fields(((b"Content-Type", b"text/plain"), (b"ETag", b'"v1"'))),
        vary=vary,
        received_at=received_at,
        born=received_at - 1,
        lifetime_s=lifetime_s,
        source=Source.MAX_AGE,
        swr_s=5,
        sie_s=6,
        outage_s=7,
        keep_s=8,
        must_revalidate=False,
        no_cache=False,
        plain_hits=True,
        etag=b'"v1"',
        tags=tags,
        part=part,
    )
    return build(plan, (body,) if body else ())


class Killed(BaseException):
    """The process ends here; nothing after it happens."""


class Stopping(FileOps):
    """Stops at the n-th operation: before it, after half of what it writes, or after it."""

    def __init__(self, at: int = -1, how: str = "before") -> None:
        self.at, self.how = at, how
        self.count = 0

    def _step(self, do, half=None):  # type: ignore[no-untyped-def]
        here = self.count == self.at
        self.count += 1
        if self.count > self.at + 1 and self.at >= 0:
            raise Killed
        if here and self.how == "before":
            raise Killed
        if here and self.how == "half" and half is not None:
            half()
            raise Killed
        found = do()
        if here:
            raise Killed
        return found

    def open(self, path: Path) -> int:
        return self._step(lambda: super(Stopping, self).open(path))  # type: ignore[no-any-return]

    def write(self, fd: int, data: bytes, at: int) -> None:
        self._step(
            lambda: super(Stopping, self).write(fd, data, at),
            lambda: super(Stopping, self).write(fd, data[: len(data) // 2], at),
        )

    def truncate(self, fd: int, length: int) -> None:
        self._step(lambda: super(Stopping, self).truncate(fd, length))

    def rename(self, old: Path, new: Path) -> None:
        self._step(lambda: super(Stopping, self).rename(old, new))

    def unlink(self, path: Path) -> None:
        self._step(lambda: super(Stopping, self).unlink(path))


class Full(FileOps):
    """A disk without space while `full`."""

    full = False

    def write(self, fd: int, data: bytes, at: int) -> None:
        if self.full:
            super().write(fd, data[: len(data) // 2], at)
            raise OSError(errno.ENOSPC, "No space left on device")
        super().write(fd, data, at)


class Run:
    """The memory that the workers of one run share, by its names."""

    def __init__(self) -> None:
        self._memory: dict[str, mmap] = {}

    def share(self, name: str, size: int) -> mmap:
        return self._memory.setdefault(name, mmap(-1, size))


RUN = Run()


def tier(path: Path, limits: Limits = SMALL, purge_log: PurgeLog | None = None, **more) -> DiskTier:  # type: ignore[no-untyped-def]
    """The tier of a folder, with a purge sequence of its own. Its filter is filled; `share` is that of its run."""
    made = DiskTier.open(path, limits, **{"share": RUN.share, **more})
    if made._filter is not None:
        made._filter._fill()
    own = purge_log or PurgeLog()
    made.purge_log = lambda: own
    return made


@contextmanager
def stuck(store: DiskTier) -> Iterator[None]:
    """The thread cannot write meanwhile: it has taken a first batch, and what comes now waits."""
    turn = os.open(store.place.store / "turn", os.O_RDWR)
    fcntl.flock(turn, fcntl.LOCK_EX)
    try:
        store.forget(Purge(PurgeKind.TAG, b"nothing has this"), NOW)
        until_blocking(lambda: store.writer.taken, look_s=0.001)
        yield
    finally:
        os.close(turn)


def looked(found: DiskTier, key: bytes) -> tuple[Stored, ...]:
    """What it has for a key, wherever its bytes are; blocking."""
    quick = found.look(key)
    if quick is not None:
        return quick
    read = found._read(key, found._own(), wait=True)
    return found._judged(key, read, found.writer.pending, [])


def body_of(found: DiskTier, stored: Stored) -> bytes | None:
    """The whole body, checked; None when it is damaged or gone."""
    if stored.file is None:
        return b"".join(stored.chunks)
    opened = found.open_body(stored)
    if opened is None:
        return None
    try:
        return b"".join(opened.piece(n, wait=True) for n in range(len(stored.file.sums) // 4))
    finally:
        opened.close()
