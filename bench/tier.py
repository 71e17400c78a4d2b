"""Which store should hold the disk tier: SQLite with bodies inside, LMDB with bodies inside (needs the `lmdb` package),
or SQLite as an index of packed segment files.

`python -m bench.tier [ENGINE …] [--objects N] [--dir DIR] [--scale S]`. Objects have sizes from 1 to 100 KiB, evenly
by logarithm, divided by `--scale` so that the volume stays small; every record carries a CRC-32, checked when read.
`beside a writer` are reads of one process while another inserts, evicts and commits without pause. `kill -9` ends a
writer in its work and opens the store again; `damage` flips bits or cuts the files of a small store and reads all of it
in a child: `died` means that the process that read it was ended by a signal.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from random import Random
from statistics import quantiles
from typing import Any

from bench.processes import as_command

try:
    import lmdb  # type: ignore[import-not-found]
except ImportError:
    lmdb = None

BATCH = 200
SEGMENT = 32 * 1024 * 1024
FILLER = os.urandom(256 * 1024)
Batch = list[tuple[bytes, bytes]]


class Sqlite:
    """One table; the key is 63 bits of a hash, so that the tree is one of integers. Oldest rows go first."""

    columns, tuple = "record BLOB NOT NULL", "INSERT OR REPLACE INTO objects (hash, born, record) VALUES (?, ?, ?)"

    def __init__(self, path: Path) -> None:
        path.mkdir(exist_ok=True)
        self.path = path
        self.db = sqlite3.connect(path / "tier.db", isolation_level=None, timeout=20, cached_statements=32)
        self.db.execute("PRAGMA page_size = 4096")
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = NORMAL")
        self.db.execute(
            f"CREATE TABLE IF NOT EXISTS objects (hash INTEGER PRIMARY KEY, born INTEGER NOT NULL, {self.columns})"
        )
        self.db.execute("CREATE INDEX IF NOT EXISTS by_age ON objects (born)")

    def put(self, batch: Batch) -> None:
        born = time.time_ns()
        self.db.execute("BEGIN IMMEDIATE")
        self.db.executemany(self.tuple, [(number(key), born + at, value) for at, (key, value) in enumerate(batch)])
        self.db.execute("COMMIT")

    def get(self, key: bytes) -> bytes | None:
        row = self.db.execute("SELECT record FROM objects WHERE hash = ?", (number(key),)).fetchone()
        return None if row is None else row[0]

    def evict(self, count: int) -> None:
        self.db.execute("BEGIN IMMEDIATE")
        self.db.execute("DELETE FROM objects WHERE hash IN (SELECT hash FROM objects ORDER BY born LIMIT ?)", (count,))
        self.db.execute("COMMIT")

    def close(self) -> None:
        self.db.close()


class Segments(Sqlite):
    """SQLite holds segment, offset and length; records stand one after the other in files that are dropped whole."""

    columns = "segment INTEGER NOT NULL, at INTEGER NOT NULL, length INTEGER NOT NULL"
    tuple = "INSERT OR REPLACE INTO objects (hash, born, segment, at, length) VALUES (?, ?, ?, ?, ?)"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.db.execute("CREATE INDEX IF NOT EXISTS by_segment ON objects (segment)")
        self.files: dict[int, int] = {}
        self.current, self.at = 0, SEGMENT

    def put(self, batch: Batch) -> None:
        if self.at >= SEGMENT:
            self.current, self.at = time.time_ns(), 0
        fd, rows, born = self.file(self.current, os.O_CREAT), [], time.time_ns()
        at = self.at
        for key, value in batch:
            rows.append((number(key), born, self.current, at, len(value)))
            at += len(value)
        os.pwrite(fd, b"".join([value for _, value in batch]), self.at)
        self.at = at
        self.db.execute("BEGIN IMMEDIATE")
        self.db.executemany(self.tuple, rows)
        self.db.execute("COMMIT")

    def get(self, key: bytes) -> bytes | None:
        query = "SELECT segment, at, length FROM objects WHERE hash = ?"
        row = self.db.execute(query, (number(key),)).fetchone()
        if row is None:
            return None
        try:
            return os.pread(self.file(row[0]), row[2], row[1])
        except FileNotFoundError:
            return None  # its segment was dropped between the two

    def evict(self, count: int) -> None:
        """Whole segments, until so many are gone; less than one at a time never."""
        self.db.execute("BEGIN IMMEDIATE")
        oldest = self.db.execute("SELECT min(segment) FROM objects").fetchone()[0]
        if oldest is not None and oldest != self.current:
            self.db.execute("DELETE FROM objects WHERE segment = ?", (oldest,))
        self.db.execute("COMMIT")
        if oldest is not None and oldest != self.current:
            (self.path / f"{oldest}.seg").unlink(missing_ok=True)
            os.close(self.files.pop(oldest)) if oldest in self.files else None

    def file(self, segment: int, flags: int = 0) -> int:
        fd = self.files.get(segment)
        if fd is None:
            if len(self.files) > 400:
                os.close(self.files.pop(next(iter(self.files))))
            fd = self.files[segment] = os.open(self.path / f"{segment}.seg", os.O_RDWR | flags, 0o600)
        return fd


class Lmdb:
    """Records under their hash, and hashes by age; commits without fsync, as the others."""

    def __init__(self, path: Path) -> None:
        size = 16 * 1024**3
        self.env = lmdb.open(str(path), map_size=size, max_dbs=2, metasync=False, sync=False, readahead=False)
        self.env.reader_check()
        self.objects, self.ages = self.env.open_db(b"objects"), self.env.open_db(b"ages")

    def put(self, batch: Batch) -> None:
        born = time.time_ns()
        with self.env.begin(write=True) as txn:
            for at, (key, value) in enumerate(batch):
                hashed = digest(key)
                txn.put(hashed, value, db=self.objects)
                txn.put((born + at).to_bytes(8, "big"), hashed, db=self.ages, append=True)

    def get(self, key: bytes) -> bytes | None:
        with self.env.begin(db=self.objects) as txn:
            return txn.get(digest(key))  # type: ignore[no-any-return]

    def evict(self, count: int) -> None:
        with self.env.begin(write=True) as txn, txn.cursor(self.ages) as cursor:
            for _ in range(count):
                if not cursor.first():
                    break
                txn.delete(cursor.value(), db=self.objects)
                cursor.delete()

    def close(self) -> None:
        self.env.close()


ENGINES: dict[str, Any] = {"sqlite": Sqlite, "segments": Segments, "lmdb": Lmdb}


def digest(key: bytes) -> bytes:
    return blake2b(key, digest_size=8).digest()


def number(key: bytes) -> int:
    return int.from_bytes(digest(key), "big", signed=True)


def objects(first: int, count: int, scale: float) -> Iterator[Batch]:
    """Batches of objects; the same number gives the same object."""
    for start in range(first, first + count, BATCH):
        batch = []
        for n in range(start, min(start + BATCH, first + count)):
            size = int(1024 * 100 ** Random(n).random() / scale)
            body = FILLER[n % 4096 : n % 4096 + size]
            key = b"http://bench.example/%d" % n
            batch.append((key, zlib.crc32(body, zlib.crc32(key)).to_bytes(4, "big") + body))
        yield batch


def whole(key: bytes, record: bytes | None) -> bool:
    return record is not None and zlib.crc32(record[4:], zlib.crc32(key)) == int.from_bytes(record[:4], "big")


def reads(engine: Any, count: int, seconds: float, first: int = 0) -> tuple[list[float], int]:
    """Microseconds of look-ups of random objects, and how many were there and whole."""
    random, taken, good = Random(7), [], 0
    end = time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        key = b"http://bench.example/%d" % random.randrange(first, first + count)
        good += whole(key, engine.get(key))
        taken.append((time.perf_counter() - began) * 1e6)
    return taken, good


def shown(taken: list[float]) -> str:
    cuts = quantiles(taken, n=1000)
    return f"{cuts[499]:.1f} / {cuts[989]:.1f} / {max(taken):.0f} µs (median / p99 / worst of {len(taken):,})"


def run(name: str, directory: Path, count: int, scale: float) -> None:
    path, make = directory / name, ENGINES[name]
    shutil.rmtree(path, ignore_errors=True)
    engine, volume, spent = make(path), 0, 0.0
    cpu = time.process_time()
    for batch in objects(0, count, scale):
        volume += sum(len(value) for _, value in batch)
        began = time.perf_counter()
        engine.put(batch)
        spent += time.perf_counter() - began
    cpu = time.process_time() - cpu
    print(f"\n{name}: {count:,} objects, {volume / 1e9:.2f} GB of records, batches of {BATCH}")
    print(f"  insert            {spent / count * 1e6:.1f} µs an object ({cpu:.0f} s of CPU in all)")
    engine.close()
    print(f"  size on disk      {du(path) / volume:.3f} × the records")
    began = time.perf_counter()
    engine = make(path)
    engine.get(b"http://bench.example/5")
    print(f"  open, first read  {(time.perf_counter() - began) * 1e3:.1f} ms")
    taken, good = reads(engine, count, 5)
    print(f"  look-up, found    {shown(taken)}, {good / len(taken):.2%} whole")
    print(f"  look-up, absent   {shown(reads(engine, count, 3, count * 10)[0])}")
    began = time.perf_counter()
    for _ in range(50):
        engine.evict(BATCH)
    print(f"  evict             {(time.perf_counter() - began) / 50 * 1e3:.2f} ms for each batch or segment")
    for writers in (1, 2):
        children = [child(name, path, "write", count * (2 + n), scale) for n in range(writers)]
        time.sleep(1.5)
        taken, _ = reads(engine, count, 5)
        rates = []
        for each in children:
            each.send_signal(signal.SIGINT)
            rates.append(int(each.communicate()[0]))
        print(f"  beside {writers} writer(s) {shown(taken)}; writers {' + '.join(f'{n:,}' for n in rates)} objects/s")
    opened = []
    for _ in range(8):
        each = child(name, path, "write", count * 5, scale)
        time.sleep(0.7)
        each.kill()
        each.communicate()
        opened.append(child(name, path, "read", count, scale).communicate()[0].strip() or "died")
    print(f"  after kill -9     {', '.join(opened)}")
    engine.close()
    shutil.rmtree(path)


def damage(name: str, directory: Path) -> None:
    """What a process that reads a damaged store makes of it."""
    path, copy, outcomes = directory / f"{name}-small", directory / f"{name}-copy", {}
    shutil.rmtree(path, ignore_errors=True)
    engine = ENGINES[name](path)
    for batch in objects(0, 4000, 8):
        engine.put(batch)
    engine.close()
    random = Random(3)
    for how in ["flip"] * 60 + ["cut"] * 10:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(path, copy)
        target = max(copy.iterdir(), key=lambda file: file.stat().st_size)
        if name == "segments" and random.random() < 0.5:
            target = copy / "tier.db"
        size = target.stat().st_blocks * 512 if name == "lmdb" else target.stat().st_size
        with target.open("r+b") as file:
            if how == "cut":
                file.truncate(random.randrange(size))
            for _ in range(200 if how == "flip" else 0):
                at = random.randrange(size)
                file.seek(at)
                byte = file.read(1)
                file.seek(at)
                file.write(bytes([byte[0] ^ 1 << random.randrange(8)]))
        each = child(name, copy, "read", 4000, 8)
        out = each.communicate()[0].strip()
        word = "died" if each.returncode < 0 else out.split()[0] if out else "error at open"
        outcomes[how, word] = outcomes.get((how, word), 0) + 1
    print(f"  damage            {', '.join(f'{how}: {word} {n} ×' for (how, word), n in sorted(outcomes.items()))}")
    shutil.rmtree(path)
    shutil.rmtree(copy)


def child(name: str, path: Path, what: str, count: int, scale: float) -> subprocess.Popen[str]:
    told = [sys.executable, "-m", "bench.tier", name, "--child", what, "--objects", str(count), "--dir", str(path)]
    return subprocess.Popen(
        [*told, "--scale", str(scale)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def as_child(name: str, path: Path, what: str, count: int, scale: float) -> None:
    """A writer until interrupted, or one read of everything."""
    engine, done, began = ENGINES[name](path), 0, time.perf_counter()
    if what == "read":
        bad = errors = 0
        for n in range(0, count, max(1, count // 4000)):
            key = b"http://bench.example/%d" % n
            try:
                record = engine.get(key)
                bad += record is not None and not whole(key, record)
            except Exception:
                errors += 1
        print(f"{'errors' if errors else 'damaged-seen' if bad else 'opened'} ({bad} bad, {errors} errors)")
        return
    try:
        for batch in objects(count, 10**9, scale):
            engine.put(batch)
            engine.evict(len(batch))
            done += len(batch)
    except KeyboardInterrupt:
        print(int(done / (time.perf_counter() - began)))


def du(path: Path) -> int:
    return sum(each.stat().st_blocks * 512 for each in path.rglob("*") if each.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engines", nargs="*", default=list(ENGINES))
    parser.add_argument("--objects", type=int, default=1_000_000)
    parser.add_argument("--scale", type=float, default=8)
    parser.add_argument("--dir", type=Path, default=Path("var/tier-bench"))
    parser.add_argument("--child", choices=("write", "read"))
    told = parser.parse_args()
    if told.child:
        as_child(told.engines[0], told.dir, told.child, told.objects, told.scale)
        return
    told.dir.mkdir(parents=True, exist_ok=True)
    for name in told.engines:
        run(name, told.dir, told.objects, told.scale)
        damage(name, told.dir)


if __name__ == "__main__":
    as_command(main)
