"""The journal after kill -9 and after cuts: all that was acknowledged, in order, nothing torn."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edge.control.journal import Journal, JournalError

# Each change is three rows that belong together; a line on standard output acknowledges it.
WRITER = """
import sys
from edge.control.journal import Journal
first, padding = int(sys.argv[2]), "x" * int(sys.argv[3])
journal = Journal.open(sys.argv[1])
print("open", flush=True)
for number in range(first, first + 100_000):
    with journal.transaction():
        journal.put_region(f"r{number % 7}", {"n": number, "padding": padding})
        journal.append_purge({"n": number})
        journal.audit("writer", "put", str(number))
    print(number, flush=True)
"""

# Making the journal, killed by its own hand where the argument says.
MAKER = """
import os, signal, sys
from edge.control import journal_file
from edge.control.journal import Journal
where, count = sys.argv[2], int(sys.argv[3])
module = os if where == "replace" else journal_file
plain = getattr(module, where)
calls = 0
def deadly(*arguments):
    global calls
    calls += 1
    if calls == count:
        os.kill(os.getpid(), signal.SIGKILL)
    return plain(*arguments)
setattr(module, where, deadly)
journal = Journal.open(sys.argv[1])
print("open", flush=True)
"""


def check(journal: Journal) -> int:
    """How many changes there are; all whole, without a gap, and agreeing with each other."""
    numbers = [record.purge["n"] for record in journal.purges_since(0)]
    assert numbers == list(range(len(numbers)))
    assert [int(record.target) for record in reversed(journal.audit_log(10**6))] == numbers
    assert {name: found.data["n"] for name, found in journal.regions().items()} == {
        f"r{number % 7}": number for number in numbers
    }
    assert journal.sequence == len(numbers)
    return len(numbers)


def write_and_kill(path: Path, first: int, acknowledged: int, padding: int) -> int:
    """Run a writer, kill it after so many acknowledgements; how many it gave in the end."""
    arguments = [sys.executable, "-c", WRITER, str(path), str(first), str(padding)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "open\n"
        for _ in range(acknowledged):
            writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        rest = [line for line in writer.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
        assert writer.wait() == -signal.SIGKILL
    return acknowledged + len(rest)


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    held = 0
    # With padding each change is about 25 KB of log, so that checkpoints (each 4 MB) happen in the long rounds.
    for acknowledged, padding in [(0, 0), (1, 0), (3, 20_000), (200, 20_000), (17, 0), (190, 20_000), (5, 0)]:
        told = held + write_and_kill(path, held, acknowledged, padding)
        with Journal.open(path) as journal:
            held = check(journal)
        assert told <= held <= told + 1  # the last one may have been durable before it could say so


@pytest.mark.parametrize(("where", "count", "left"), [("sync", 1, False), ("replace", 1, False), ("sync", 2, True)])
def test_kill_9_while_the_journal_is_made(tmp_path: Path, where: str, count: int, left: bool) -> None:
    path = tmp_path / "state.sqlite"
    maker = subprocess.run(
        [sys.executable, "-c", MAKER, str(path), where, str(count)], capture_output=True, check=False
    )
    assert maker.returncode == -signal.SIGKILL and maker.stdout == b""
    assert path.exists() == left
    with Journal.open(path) as journal:
        assert check(journal) == 0
        journal.put_region("eu", {})
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["state.sqlite", "state.sqlite.lock"]


def history(folder: Path, changes: int) -> tuple[Path, list[int]]:
    """A journal as kill -9 leaves it, and the log's size after each change."""
    path = folder / "live" / "state.sqlite"
    log = path.with_name(path.name + "-wal")
    with Journal.open(path) as journal:
        sizes = []
        for number in range(changes):
            with journal.transaction():
                journal.put_region(f"r{number % 7}", {"n": number})
                journal.append_purge({"n": number})
                journal.audit("writer", "put", str(number))
            sizes.append(log.stat().st_size)
        shutil.copytree(path.parent, folder / "killed")  # closing would fold the log into the main file
    return folder / "killed" / "state.sqlite", sizes


def test_a_log_cut_at_any_byte_opens_to_the_last_whole_change(tmp_path: Path) -> None:
    killed, sizes = history(tmp_path, 12)
    log = killed.with_name(killed.name + "-wal").read_bytes()
    assert len(log) == sizes[-1]
    frame = 24 + 4096
    edges = {0, 1, 31, 32, 33} | {32 + number * frame + by for number in range(len(log) // frame) for by in (-1, 0, 1)}
    chosen = edges | set(sizes) | {random.Random(7).randrange(len(log)) for _ in range(60)}
    for cut in sorted(at for at in chosen if at <= len(log)):
        path = tmp_path / f"cut-{cut}" / "state.sqlite"
        path.parent.mkdir()
        shutil.copy(killed, path)
        path.with_name(path.name + "-wal").write_bytes(log[:cut])
        with Journal.open(path) as journal:
            whole = sum(size <= cut for size in sizes)
            assert check(journal) == whole, f"cut at {cut}"
            journal.append_purge({"n": whole})  # and it goes on from there
        shutil.rmtree(path.parent)


def test_a_damaged_byte_in_the_log_ends_it_there(tmp_path: Path) -> None:
    killed, sizes = history(tmp_path, 8)
    log = killed.with_name(killed.name + "-wal").read_bytes()
    chooser = random.Random(11)
    for at in [32 + 24, *(chooser.randrange(32, len(log)) for _ in range(40))]:
        path = tmp_path / f"flip-{at}" / "state.sqlite"
        path.parent.mkdir(exist_ok=True)
        shutil.copy(killed, path)
        path.with_name(path.name + "-wal").write_bytes(log[:at] + bytes([log[at] ^ 0x10]) + log[at + 1 :])
        with Journal.open(path) as journal:
            assert check(journal) == sum(size <= at for size in sizes), f"flipped at {at}"


def test_a_main_file_cut_anywhere_is_refused_not_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    with Journal.open(path) as journal:
        for number in range(50):
            journal.put_region(f"r{number}", {"padding": "x" * 500})
    whole = path.read_bytes()
    for cut in [0, 1, 15, 16, 99, 100, 101, 4095, 4096, 8192, 20_000, len(whole) - 4096, len(whole) - 1]:
        path.write_bytes(whole[:cut])
        with pytest.raises(JournalError, match="damaged"):
            Journal.open(path)
        assert path.read_bytes() == whole[:cut]
    path.write_bytes(whole)
    with Journal.open(path) as journal:
        assert len(journal.regions()) == 50
