"""A secret that workers share, made by whoever is first; memory that they share."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edge.adapters.secret_file import SIZE, shared_secret
from edge.adapters.shared_memory import SEED, shared_memory


def test_everybody_gets_the_same_secret_whoever_is_first(tmp_path: Path) -> None:
    for round_ in range(20):
        path = tmp_path / str(round_) / "affinity.key"
        with ThreadPoolExecutor(8) as pool:
            found = set(pool.map(shared_secret, [path] * 8))
        assert len(found) == 1 and len(found.pop()) == SIZE
        assert path.stat().st_mode & 0o777 == 0o600
        assert [each.name for each in path.parent.iterdir()] == ["affinity.key"]


def test_a_link_or_a_file_of_another_kind_is_no_secret(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"x" * SIZE)
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "short").write_bytes(b"x")
    for name in ("link", "short"):
        with pytest.raises(OSError):
            shared_secret(tmp_path / name)


def test_memory_is_of_one_run_and_of_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SEED, raising=False)
    assert shared_memory(tmp_path, "a", 4096) is None
    monkeypatch.setenv(SEED, "1")
    one, same, other = (shared_memory(tmp_path, name, 4096) for name in ("a", "a", "b"))
    assert one is not None and same is not None and other is not None
    one[:3] = b"abc"
    assert (same[:3], other[:3]) == (b"abc", b"\0\0\0")
    monkeypatch.setenv(SEED, "2")
    new = shared_memory(tmp_path, "a", 4096)
    assert new is not None and new[:3] == b"\0\0\0" and len(list(tmp_path.iterdir())) == 1
