"""What every repository must do: the directory, the object store, the fake, and the wrapper for retries."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from kit.ports import free_port
from kit.repository import BUCKET, MemoryRepository, S3Server, Watched

from edge.adapters.repository_directory import TEMPORARY, DirectoryRepository
from edge.adapters.repository_retry import ATTEMPTS, RetryingRepository
from edge.adapters.repository_s3 import S3Repository
from edge.errors import RepositoryFull, RepositoryRefused, RepositoryUnreachable
from edge.ports import Repository

_prefix = itertools.count()


def flaky(inner: Repository) -> Repository:
    """Each operation fails twice before it is done."""
    left = itertools.cycle((True, True, False))

    def before(operation: str, name: str) -> None:
        if next(left):
            raise RepositoryUnreachable("not now")

    return RetryingRepository(Watched(inner, before), lambda s: None, lambda: 0.5)


@pytest.fixture(params=["memory", "directory", "s3", "retrying"])
def repository(request: pytest.FixtureRequest, tmp_path: Path) -> Repository:
    if request.param == "memory":
        return MemoryRepository()
    if request.param == "directory":
        return DirectoryRepository(tmp_path / "deep" / "repository")
    if request.param == "s3":
        server: S3Server = request.getfixturevalue("s3")
        return S3Repository(f"s3://{BUCKET}/edge/{next(_prefix)}", server.endpoint, "eu-west-1")
    return flaky(DirectoryRepository(tmp_path / "repository"))


def test_what_was_put_is_read_back_whole_and_in_parts(repository: Repository) -> None:
    data = bytes(range(256)) * 40
    repository.put("packs/ab/one", data)
    assert repository.get("packs/ab/one") == data
    assert repository.size("packs/ab/one") == len(data)
    assert repository.read("packs/ab/one", 250, 20) == data[250:270]
    assert repository.read("packs/ab/one", len(data) - 3, 20) == data[-3:]
    assert repository.read("packs/ab/one", len(data), 20) == b""
    assert repository.read("packs/ab/one", 0, 0) == b""


def test_what_is_not_there_is_none(repository: Repository) -> None:
    assert repository.get("points/none") is None
    assert repository.size("points/none") is None
    assert repository.read("points/none", 0, 5) is None
    repository.delete("points/none")
    assert list(repository.files("points/")) == []
    assert list(repository.files("")) == []


def test_putting_again_replaces(repository: Repository) -> None:
    repository.put("locks/a", b"one")
    repository.put("locks/a", b"another")
    assert repository.get("locks/a") == b"another"


def test_creating_takes_a_name_once(repository: Repository) -> None:
    assert repository.create("config", b"first")
    assert not repository.create("config", b"second")
    assert repository.get("config") == b"first"
    repository.delete("config")
    assert repository.create("config", b"third")


def test_listing_goes_by_folder_and_sees_deletions(repository: Repository) -> None:
    for name in ("points/a", "points/b", "packs/c", "evidence/a/1"):
        repository.put(name, name.encode())
    assert sorted(file.name for file in repository.files("points/")) == ["points/a", "points/b"]
    assert sorted((file.name, file.size) for file in repository.files("evidence/a/")) == [("evidence/a/1", 12)]
    assert len(list(repository.files(""))) == 4
    repository.delete("points/a")
    assert [file.name for file in repository.files("points/")] == ["points/b"]
    repository.clean()
    assert len(list(repository.files(""))) == 3


def test_an_empty_file_is_a_file(repository: Repository) -> None:
    repository.put("points/empty", b"")
    assert repository.get("points/empty") == b"" and repository.size("points/empty") == 0


# -- the directory -----------------------------------------------------------------------------------------------------


def test_leftovers_of_a_kill_are_never_listed_and_cleaned(tmp_path: Path) -> None:
    repository = DirectoryRepository(tmp_path)
    repository.put("points/a", b"x")
    (tmp_path / TEMPORARY / "left").write_bytes(b"half")
    assert [file.name for file in repository.files("")] == ["points/a"]
    repository.clean()
    assert list((tmp_path / TEMPORARY).iterdir()) == []


@pytest.mark.parametrize(
    ("number", "wanted", "words"),
    [(28, RepositoryFull, "make room"), (13, RepositoryRefused, "belong"), (5, RepositoryUnreachable, "mounted")],
)
def test_a_disks_errors_have_names_and_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, wanted: type[Exception], words: str
) -> None:
    repository = DirectoryRepository(tmp_path)
    repository.put("points/a", b"before")

    def fails(*arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "write", fails)
    with pytest.raises(wanted, match=words):
        repository.put("points/a", b"after")
    monkeypatch.undo()
    assert repository.get("points/a") == b"before"
    assert list((tmp_path / TEMPORARY).iterdir()) == []


def test_a_put_is_durable_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def noted(word: str, plain: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **named: object) -> object:
            done.append(word)
            return plain(*arguments, **named)

        return call

    repository = DirectoryRepository(tmp_path)
    repository.put("points/a", b"x")
    for word in ("write", "fsync", "replace"):
        monkeypatch.setattr(os, word, noted(word, getattr(os, word)))
    repository.put("points/b", b"x")
    assert done == ["write", "fsync", "replace", "fsync"]


# -- the wrapper -------------------------------------------------------------------------------------------------------


def failing(error: Exception, times: int) -> tuple[RetryingRepository, list[float]]:
    left, slept = [times], list[float]()

    def before(operation: str, name: str) -> None:
        if left[0]:
            left[0] -= 1
            raise error

    return RetryingRepository(Watched(MemoryRepository(), before), slept.append, lambda: 0.0), slept


def test_waits_grow_and_end() -> None:
    repository, slept = failing(RepositoryUnreachable("away"), ATTEMPTS)
    with pytest.raises(RepositoryUnreachable):
        repository.put("a", b"")
    assert slept == [0.1, 0.2, 0.4, 0.8]


def test_what_will_not_help_is_not_tried_again() -> None:
    repository, slept = failing(RepositoryRefused("no"), 1)
    with pytest.raises(RepositoryRefused):
        repository.put("a", b"")
    assert slept == []


def test_a_create_whose_answer_was_lost_is_ours() -> None:
    inner = MemoryRepository()

    class Deaf(MemoryRepository):
        lost = True

        def create(self, name: str, data: bytes) -> bool:
            made = inner.create(name, data)
            if self.lost:
                self.lost = False
                raise RepositoryUnreachable("no answer")
            return made

    repository = RetryingRepository(Deaf(inner.held), lambda s: None, lambda: 0.0)
    assert repository.create("locks/a", b"ours")
    assert not repository.create("locks/a", b"theirs")


# -- the object store --------------------------------------------------------------------------------------------------


def test_wrong_bucket_is_refused_and_a_dead_endpoint_unreachable(s3: S3Server) -> None:
    with pytest.raises(RepositoryRefused, match="bucket"):
        S3Repository("s3://nowhere/edge", s3.endpoint, None).put("a", b"")
    with pytest.raises(RepositoryUnreachable, match="endpoint"):
        S3Repository(f"s3://{BUCKET}/edge", f"http://127.0.0.1:{free_port()}", None).get("a")
