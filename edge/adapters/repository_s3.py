"""A repository in an S3-compatible object store, through obstore.

Credentials come from where the AWS tools take them (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a session token, the
machine's role), never from the configuration file. S3 shows an object whole or not at all, and durable; `create` is a
conditional PUT (`If-None-Match: *`). A body is sent in one PUT, so that a kill leaves no half of a multipart upload.

One rule: every failure is told apart by what helps: try again (unreachable), or change something (refused). obstore's
own retries are off: they are the wrapper's (`repository_retry`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from edge.errors import RecoveryError, RepositoryRefused, RepositoryUnreachable
from edge.ports import RepositoryFile

CONNECT_S, REQUEST_S = 5.0, 60.0
_REFUSING = (
    *("InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "NoSuchBucket", "ExpiredToken"),
    "403 Forbidden",
)


class S3Repository:
    """`ports.Repository` below `s3://bucket/prefix`."""

    def __init__(self, url: str, endpoint: str | None, region: str | None, request_s: float = REQUEST_S) -> None:
        try:
            import obstore
            from obstore.exceptions import BaseError
            from obstore.store import S3Store
        except ImportError:
            raise RecoveryError(
                f"{url}: the package obstore is missing, which speaks S3: pip install 'streamgate[s3]'"
            ) from None
        parts = urlsplit(url)
        self.place = url
        self._api: Any = obstore
        self._error: type[Exception] = BaseError
        self._missing = (FileNotFoundError, obstore.exceptions.NotFoundError)
        self._there = (FileExistsError, obstore.exceptions.AlreadyExistsError, obstore.exceptions.PreconditionError)
        self._prefix = parts.path.strip("/")
        plain = endpoint is not None and endpoint.startswith("http:")
        options: dict[str, Any] = {"endpoint": endpoint.rstrip("/")} if endpoint else {}
        try:
            self._store: Any = S3Store(
                parts.netloc,
                prefix=self._prefix or None,
                region=region or "us-east-1",
                client_options={
                    "allow_http": plain,
                    "connect_timeout": timedelta(seconds=CONNECT_S),
                    "timeout": timedelta(seconds=request_s),
                },
                retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=request_s)},
                **options,
            )
        except Exception as error:
            raise RepositoryRefused(
                f"{url}: {_first_line(error)}: see snapshots.endpoint and snapshots.region"
            ) from None

    def put(self, name: str, data: bytes) -> None:
        """As `ports.Repository` says."""
        with self._explained():
            self._api.put(self._store, name, data, use_multipart=False)

    def create(self, name: str, data: bytes) -> bool:
        """As `ports.Repository` says."""
        with self._explained():
            try:
                self._api.put(self._store, name, data, mode="create", use_multipart=False)
            except self._there:
                return False
            return True

    def get(self, name: str) -> bytes | None:
        """As `ports.Repository` says."""
        with self._explained():
            try:
                return bytes(self._api.get(self._store, name).bytes())
            except self._missing:
                return None

    def read(self, name: str, offset: int, length: int) -> bytes | None:
        """As `ports.Repository` says."""
        size = self.size(name)
        if size is None:
            return None
        if offset >= size or not length:
            return b""
        with self._explained():
            try:
                return bytes(self._api.get_range(self._store, name, start=offset, length=length))
            except self._missing:
                return None

    def size(self, name: str) -> int | None:
        """As `ports.Repository` says."""
        with self._explained():
            try:
                return int(self._api.head(self._store, name)["size"])
            except self._missing:
                return None

    def files(self, prefix: str) -> Iterator[RepositoryFile]:
        """As `ports.Repository` says."""
        with self._explained():
            for page in self._api.list(self._store, prefix=prefix.strip("/") or None):
                for each in page:
                    yield RepositoryFile(each["path"], int(each["size"]))

    def delete(self, name: str) -> None:
        """As `ports.Repository` says."""
        with self._explained():
            try:
                self._api.delete(self._store, name)
            except self._missing:
                return

    def clean(self) -> None:
        """An object store shows nothing of what a killed writer left."""

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (self._error, OSError, ValueError) as error:
            why, whole = _first_line(error), str(error)
            kind = type(error).__name__
            if kind in ("PermissionDeniedError", "UnauthenticatedError", "PermissionError") or any(
                word in whole for word in _REFUSING
            ):
                raise RepositoryRefused(
                    f"{self.place} refuses ({why}): see AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, the bucket's name "
                    f"and its policy"
                ) from None
            raise RepositoryUnreachable(
                f"{self.place} does not answer as it should ({why}): see snapshots.endpoint and the network"
            ) from None


def _first_line(error: Exception) -> str:
    """What a library said, short and without what could be a credential in a URL's query."""
    text = str(error).strip().splitlines() or [type(error).__name__]
    return text[0].partition("?")[0][:200]
