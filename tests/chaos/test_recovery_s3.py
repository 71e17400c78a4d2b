"""Points in an object store that answers 500, 503, not at all, or does a thing and loses the answer."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from functools import lru_cache

import pytest
from kit.recovery import KEY, Clock, Little, pruned, restored, taken, work_on
from kit.repository import BUCKET, FaultyProxy, S3Server

from edge.adapters.repository_retry import RetryingRepository
from edge.adapters.repository_s3 import S3Repository
from edge.errors import RepositoryRefused, RepositoryUnreachable
from edge.recovery.points import PointKind
from edge.sidecar.take import Work
from edge.sidecar.verify import Portion, verify

FULL, INCR = PointKind.FULL, PointKind.INCREMENTAL
_prefix = itertools.count()


@pytest.fixture
def proxy(s3: S3Server) -> Iterator[FaultyProxy]:
    found = FaultyProxy(s3)
    yield found
    found.stop()


@lru_cache(maxsize=4)  # a client takes a tenth of a second to make
def client(endpoint: str, prefix: int) -> S3Repository:
    return S3Repository(f"s3://{BUCKET}/faulty/{prefix}", endpoint, None, request_s=5.0)


def opened(endpoint: str, prefix: int, clock: Clock) -> Work:
    inner = client(endpoint, prefix)
    return work_on(RetryingRepository(inner, lambda s: None, lambda: 0.0), clock, KEY)


@pytest.fixture
def state() -> Little:
    little = Little()
    for number in range(6):
        little.change(f"row{number}", b"v", b"body %d " % number * 300)
    return little


def seldom(seed: int) -> Iterator[str | None]:
    """A fault for every third request, of every kind, never more than three in a row."""
    chooser = random.Random(seed)
    row = 0
    while True:
        bad = row < 3 and chooser.random() < 0.34
        row = row + 1 if bad else 0
        yield chooser.choice(["500", "503", "reset", "lost"]) if bad else None


@pytest.mark.parametrize("seed", range(4))
def test_now_and_then_a_fault_changes_nothing(proxy: FaultyProxy, state: Little, seed: int) -> None:
    proxy.faults = seldom(seed)
    work = opened(proxy.endpoint, next(_prefix), Clock())
    tables = {}
    for number, kind in enumerate((FULL, INCR, INCR, FULL)):
        state.change("row0", b"%d" % number, b"changed %d" % number * 50)
        tables[taken(work, state, kind).id] = state.table()
    assert verify(work, None, Portion()).problems == {}
    pruned(work, last=2)
    assert len(work.vault.points()) == 4  # the third needs the first two
    for name, table in tables.items():
        assert restored(work, name)[0] == table
    assert not list(work.vault.repository.files("locks/"))
    assert set(proxy.seen) == {"passed", "500", "503", "reset", "lost"}


@pytest.mark.parametrize(("first_bad", "fault"), [(0, "503"), (1, "reset"), (2, "lost")])  # each request is one's
def test_an_outage_at_any_request_harms_no_point(
    proxy: FaultyProxy,
    s3: S3Server,
    state: Little,
    first_bad: int,
    fault: str,
) -> None:
    prefix, clock = next(_prefix), Clock()
    first = taken(opened(proxy.endpoint, prefix, clock), state, FULL)
    sound, wanted = opened(s3.endpoint, prefix, clock), state.table()
    state.change("row0", b"new", b"another body" * 90)
    failed = 0
    for after in itertools.count(first_bad, 3):
        proxy.faults = itertools.chain(itertools.repeat(None, after), itertools.repeat(fault))
        try:
            taken(opened(proxy.endpoint, prefix, clock), state, INCR)
            break
        except RepositoryUnreachable:
            failed += 1
            for lock in list(sound.vault.repository.files("locks/")):  # this process lives: they are not dead
                sound.vault.repository.delete(lock.name)
    assert failed > 3
    assert verify(sound, None, Portion()).problems == {}
    assert restored(sound, first.id)[0] == wanted
    last = taken(sound, state, INCR)
    assert restored(sound, last.id)[0] == state.table()


def test_credentials_that_are_refused_are_named_and_not_tried_again(proxy: FaultyProxy, state: Little) -> None:
    work = opened(proxy.endpoint, next(_prefix), Clock())
    proxy.faults = itertools.repeat("403")
    with pytest.raises(RepositoryRefused, match="AWS_ACCESS_KEY_ID"):
        taken(work, state, FULL)
    assert proxy.seen["403"] <= 2  # the attempt, and letting go of its lock
