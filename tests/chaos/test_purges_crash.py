"""Many purges in one step of the disk tier, and kill -9 in the middle: what was acknowledged is gone, and what the tier
says it has seen it has seen, in order, so that the next start takes out the rest.
"""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from kit.tier import NOW, SMALL, looked, response, tier

from edge.adapters.disk_changes import Changer, Changes
from edge.adapters.disk_index import connect
from edge.adapters.disk_place import Place
from edge.adapters.disk_rows import Addition
from edge.adapters.disk_start import open_place, take_over
from edge.cache.purge import Numbered, Purge, PurgeKind, PurgeLog
from edge.cache.record import encode

OBJECTS = 1536
KEYS = [b"http://a/%d" % number for number in range(1, OBJECTS + 1)]

# Purge N names object N; a line on standard output acknowledges up to the number that stands in it.
PURGER = """
import sys
from pathlib import Path
from edge.adapters import disk_rows
from edge.adapters.disk_changes import Changer
from edge.adapters.disk_start import open_place
from edge.cache.purge import PurgeKind, Numbered, Purge
from tests.kit.tier import NOW, SMALL
first, last, together, disk_rows.PURGED_ROWS = (int(word) for word in sys.argv[2:])
changer = Changer(open_place(Path(sys.argv[1])), SMALL, durable=True)
for at in range(first, last, together):
    sys.stdin.readline()  # it is let
    numbers = range(at, min(last, at + together))
    found = changer.purge([Numbered(each, [Purge(PurgeKind.URL, b"http://a/%d" % each)]) for each in numbers], NOW)
    assert [len(touched) for touched in found] == [1] * len(numbers)
    print(numbers[-1], flush=True)
"""


def filled(path: Path) -> Place:
    """A tier with every object in it."""
    place = open_place(path)
    changer = Changer(place, SMALL)
    changer.apply(Changes([Addition(stored := response(key), encode(stored, 0)) for key in KEYS]))
    changer.close()
    return place


def purge_and_kill(path: Path, first: int, lines: int, together: int, rows: int) -> int:
    """Run the purger from a number on, kill it after so many lines; the last number that it has acknowledged. It goes
    one step further at most, however late the kill comes."""
    arguments = [str(each) for each in (path, first, OBJECTS + 1, together, rows)]
    command = [sys.executable, "-c", PURGER, *arguments]
    pipe, environment = subprocess.PIPE, {"PYTHONPATH": ":".join(sys.path)}
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) as purger:
        assert purger.stdin is not None and purger.stdout is not None
        purger.stdin.write("\n" * (lines + 1))
        purger.stdin.flush()
        told = [purger.stdout.readline() for _ in range(lines)]
        purger.send_signal(signal.SIGKILL)
        told += [line for line in purger.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
        purger.wait()
    return int(told[-1])


def state(place: Place) -> tuple[int, set[int]]:
    """Up to which number the tier has seen purges, and the objects that are in its index."""
    changer = Changer(place, SMALL)
    known = {changer.sums.of(key): number for number, key in enumerate(KEYS, 1)}
    changer.close()
    db: sqlite3.Connection = connect(place)
    (purged,) = db.execute("SELECT value FROM facts WHERE name = 'purged'").fetchone()
    left = {known[hashed] for (hashed,) in db.execute("SELECT hash FROM objects")}
    db.close()
    return int(purged), left


@pytest.mark.parametrize("rows", [512, 7], ids=["one transaction", "several"])
def test_kill_9_between_purges_that_go_together(tmp_path: Path, rows: int) -> None:
    place = filled(tmp_path)
    seen = 0
    for lines in (1, 3, 2):
        told = purge_and_kill(tmp_path, seen + 1, lines, 64, rows)
        seen, left = state(place)
        assert seen >= told, "an acknowledged purge is durable"
        assert left == set(range(seen + 1, OBJECTS + 1)), "all up to that number, and nothing after it"
    purge_log = PurgeLog()
    for number in range(1, seen + 33):  # the journal has some more, which were not carried out here before the kill
        purge_log.record(Purge(PurgeKind.URL, b"http://a/%d" % number), NOW, number)
    take_over(place, SMALL, purge_log, "")
    store = tier(tmp_path, purge_log=purge_log)
    assert not any(looked(store, key) for key in KEYS[: seen + 32])
    assert looked(store, KEYS[seen + 32])
    store.close()


def test_each_of_many_purges_is_counted_by_itself(tmp_path: Path) -> None:
    place = filled(tmp_path)
    changer = Changer(place, SMALL, durable=True)
    commits: list[str] = []
    changer.db.set_trace_callback(lambda statement: commits.append(statement) if statement == "COMMIT" else None)
    purges = [
        Numbered(1, [Purge(PurgeKind.URL, KEYS[0]), Purge(PurgeKind.URL, KEYS[1])]),
        Numbered(2, [Purge(PurgeKind.URL, KEYS[0])]),
        Numbered(3, [Purge(PurgeKind.PREFIX, b"a")]),
        Numbered(4, [Purge(PurgeKind.URL, KEYS[2], soft=True)]),
    ]
    assert [len(touched) for touched in changer.purge(purges, NOW)] == [2, 0, 0, 1]
    assert commits == ["COMMIT"] and state(place)[0] == 4
    changer.close()
