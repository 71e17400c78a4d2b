"""A repository in a directory.

    put      .tmp/<random> ─► write ─► fsync ─► rename to its name ─► fsync of the folder
    create   the same with `link` in place of `rename`, which fails when the name is there

One rule: a name is there only when all of its bytes are durable, and is there for good when the call returns. A kill at
any step leaves at most a file in `.tmp`, which nobody reads and `clean` removes.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge.adapters.durable_file import sync, written
from edge.errors import RepositoryFull, RepositoryRefused, RepositoryUnreachable
from edge.ports import RepositoryFile

TEMPORARY = ".tmp"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR)


class DirectoryRepository:
    """`ports.Repository` below one directory, which is made when something is written."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._made: set[Path] = set()
        self.place = f"file:{root}"

    def put(self, name: str, data: bytes) -> None:
        """As `ports.Repository` says."""
        with self._explained():
            fresh = self._written(data)
            os.replace(fresh, self._folder_of(name) / Path(name).name)
            sync((self._root / name).parent)

    def create(self, name: str, data: bytes) -> bool:
        """As `ports.Repository` says."""
        with self._explained():
            fresh = self._written(data)
            try:
                os.link(fresh, self._folder_of(name) / Path(name).name)
            except FileExistsError:
                return False
            finally:
                os.unlink(fresh)
            sync((self._root / name).parent)
            return True

    def get(self, name: str) -> bytes | None:
        """As `ports.Repository` says."""
        with self._explained():
            try:
                return (self._root / name).read_bytes()
            except FileNotFoundError:
                return None

    def read(self, name: str, offset: int, length: int) -> bytes | None:
        """As `ports.Repository` says."""
        with self._explained():
            try:
                with (self._root / name).open("rb") as file:
                    file.seek(offset)
                    return file.read(length)
            except FileNotFoundError:
                return None

    def size(self, name: str) -> int | None:
        """As `ports.Repository` says."""
        with self._explained():
            try:
                return (self._root / name).stat().st_size
            except FileNotFoundError:
                return None

    def files(self, prefix: str) -> Iterator[RepositoryFile]:
        """As `ports.Repository` says."""
        with self._explained():
            start = self._root / prefix
            for folder, folders, names in os.walk(start):
                folders[:] = [each for each in folders if each != TEMPORARY]
                for each in names:
                    path = Path(folder) / each
                    try:
                        size = path.stat().st_size
                    except FileNotFoundError:
                        continue  # deleted meanwhile
                    yield RepositoryFile(path.relative_to(self._root).as_posix(), size)

    def delete(self, name: str) -> None:
        """As `ports.Repository` says."""
        with self._explained():
            path = self._root / name
            try:
                os.unlink(path)
            except FileNotFoundError:
                return
            sync(path.parent)

    def clean(self) -> None:
        """As `ports.Repository` says."""
        with self._explained():
            folder = self._root / TEMPORARY
            for path in folder.iterdir() if folder.is_dir() else ():
                path.unlink(missing_ok=True)

    # -- inside ----------------------------------------------------------------------------------------------------

    def _written(self, data: bytes) -> Path:
        """A durable file without a name that counts."""
        self._make(self._root / TEMPORARY)
        return written(self._root / TEMPORARY, data)

    def _folder_of(self, name: str) -> Path:
        folder = (self._root / name).parent
        self._make(folder)
        return folder

    def _make(self, folder: Path) -> None:
        """A folder that is there after a power cut too: whoever made it may have been killed before it was durable."""
        if folder in self._made:
            return
        chain = [each for each in (folder, *folder.parents) if each == self._root or self._root in each.parents]
        for each in reversed(chain):
            each.mkdir(mode=0o700, parents=each == self._root, exist_ok=True)
            sync(each.parent)
        self._made.add(folder)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._made.clear()
            why = f"{self.place}: {error.strerror or error}"
            if error.errno in _FULL:
                raise RepositoryFull(f"{why}: make room, or prune with stricter snapshots.keep") from None
            if error.errno in _REFUSED:
                raise RepositoryRefused(f"{why}: the directory must belong to the user that runs the gateway") from None
            raise RepositoryUnreachable(f"{why}: is the disk there and mounted?") from None
