"""Another attempt at a repository, for what may succeed then.

One rule: only RepositoryUnreachable is tried again, and every operation of a repository may be: what is written under a
name is the same bytes each time. `create` alone has a doubt: an attempt may have succeeded without its answer, so a
file that is there with just our bytes counts as made by us.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from edge.errors import RepositoryUnreachable
from edge.ports import Repository, RepositoryFile

Answer = TypeVar("Answer")
ATTEMPTS = 5
FIRST_S, LONGEST_S = 0.2, 5.0


class RetryingRepository:
    """`ports.Repository` round another one. `sleep(s)` waits; `jitter()` gives a number from 0 to 1."""

    def __init__(
        self, inner: Repository, sleep: Callable[[float], None], jitter: Callable[[], float], attempts: int = ATTEMPTS
    ) -> None:
        self.place = inner.place
        self.retries = 0
        self._inner = inner
        self._sleep = sleep
        self._jitter = jitter
        self._attempts = attempts

    def put(self, name: str, data: bytes) -> None:
        """As `ports.Repository` says."""
        self._again(lambda: self._inner.put(name, data))

    def create(self, name: str, data: bytes) -> bool:
        """As `ports.Repository` says."""
        tries = 0

        def once() -> bool:
            nonlocal tries
            tries += 1
            if self._inner.create(name, data):
                return True
            return tries > 1 and self.get(name) == data

        return self._again(once)

    def get(self, name: str) -> bytes | None:
        """As `ports.Repository` says."""
        return self._again(lambda: self._inner.get(name))

    def read(self, name: str, offset: int, length: int) -> bytes | None:
        """As `ports.Repository` says."""
        return self._again(lambda: self._inner.read(name, offset, length))

    def size(self, name: str) -> int | None:
        """As `ports.Repository` says."""
        return self._again(lambda: self._inner.size(name))

    def files(self, prefix: str) -> Iterator[RepositoryFile]:
        """As `ports.Repository` says. A listing that broke off is begun again as a whole."""
        yield from self._again(lambda: list(self._inner.files(prefix)))

    def delete(self, name: str) -> None:
        """As `ports.Repository` says."""
        self._again(lambda: self._inner.delete(name))

    def clean(self) -> None:
        """As `ports.Repository` says."""
        self._again(self._inner.clean)

    def _again(self, deed: Callable[[], Answer]) -> Answer:
        wait_s = FIRST_S
        for _ in range(self._attempts - 1):
            try:
                return deed()
            except RepositoryUnreachable:
                self.retries += 1
                self._sleep(wait_s * (0.5 + self._jitter() / 2))
                wait_s = min(LONGEST_S, wait_s * 2)
        return deed()
