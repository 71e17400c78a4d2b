"""The disk tier against a plain model, in any order: put, get, vary, parts, each purge, removal, restart, crash.

What the model says is what *may* be found: a tier may always have less (evicted, lost with a crash), never something
else or something purged; and something older than what was stored or removed last only when a crash took that away.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from kit.tier import NOW, SMALL, body_of, looked, response, tier

from edge.adapters.disk_changes import Changer
from edge.adapters.disk_start import open_place, take_over
from edge.cache.purge import Numbered, Purge, PurgeKind, PurgeLog
from edge.http.ranges import ContentRange

KEYS = [b"http://x/a", b"http://x/a/b", b"http://x/ab", b"http://y/a", b"http://y/a h:v=1:1"]
VARY = [(), ((b"accept-encoding", b"gzip"),), ((b"accept-encoding", None),)]
TAGS = [b"t1", b"t2"]
PREFIXES = [b"/a", b"x/a", b"y", b"x/a/b"]


def names(purge: Purge, key: bytes, tags: frozenset[bytes]) -> bool:
    """What a purge means, written down another way than the code's."""
    host, _, rest = key.partition(b" ")[0][7:].partition(b"/")
    path = b"/" + rest
    if purge.kind is PurgeKind.URL:
        return key.partition(b" ")[0] == purge.value
    if purge.kind is PurgeKind.TAG:
        return purge.value in tags
    if purge.kind is PurgeKind.HOST:
        return host == purge.value
    if purge.kind is PurgeKind.ALL:
        return True
    wanted_host, slash, wanted = purge.value.partition(b"/")
    if wanted_host and wanted_host != host:
        return False
    return not slash or path == b"/" + wanted or path.startswith(b"/" + wanted + b"/")


@dataclass
class Known:
    """One response as the model has it."""

    body: bytes
    tags: frozenset[bytes]
    stale_at: float | None = None


@dataclass
class Model:
    """By key, then by variant and part."""

    kept: dict[bytes, dict[object, Known]] = field(default_factory=dict)


class TierMachine(RuleBasedStateMachine):
    """See the module."""

    @initialize()
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tier-model-"))
        self.journal = PurgeLog()
        self.number = 0
        self.count = 0
        self.now = NOW
        self.model = Model()
        self.older: dict[tuple[bytes, object], list[Known]] = {}  # would come back with a crash now
        self.back: dict[tuple[bytes, object], list[Known]] = {}  # may have come back with the last one
        self.must: set[tuple[bytes, object]] = set()  # written for certain: has to be found
        self.open()

    def open(self) -> None:
        take_over(open_place(self.folder), SMALL, self.journal, "")
        self.purge_log = PurgeLog.from_dict(self.journal.to_dict())
        self.tier = tier(self.folder, purge_log=self.purge_log)

    @rule(
        key=st.sampled_from(KEYS),
        vary=st.sampled_from(VARY),
        tags=st.frozensets(st.sampled_from(TAGS)),
        part=st.booleans(),
        large=st.booleans(),
    )
    def put(self, key: bytes, vary: object, tags: frozenset[bytes], part: bool, large: bool) -> None:
        self.count += 1
        self.now += 1
        body = b"%d " % self.count * (40_000 if large else 3)
        held = ContentRange(0, len(body) - 1, len(body) + 5) if part else None
        stored = response(key, body, vary=vary, tags=tags, part=held, received_at=self.now)  # type: ignore[arg-type]
        assert self.tier.put(stored, self.purge_log.now_seq())
        places = self.model.kept.setdefault(key, {})
        if held is None:
            for other in {place for place in places if place[0] == vary} | {  # type: ignore[index]
                place
                for wanted, place in self.back
                if wanted == key and place[0] == vary  # type: ignore[index]
            }:
                self.gone(key, other)
        place = (vary, None if held is None else (held.first, held.last))
        self.gone(key, place)
        places[place] = Known(body, tags)
        self.must.add((key, place))

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        found = looked(self.tier, data.draw(st.sampled_from(KEYS)))
        if found:
            stored = data.draw(st.sampled_from(found))
            self.tier.remove(stored)
            place = (stored.vary, None if stored.part is None else (stored.part.first, stored.part.last))
            self.gone(stored.key, place)

    def gone(self, key: bytes, place: object) -> None:
        """Replaced or removed, and for certain only when that is written."""
        known = self.model.kept.get(key, {}).pop(place, None)
        before = [*self.back.pop((key, place), []), *([] if known is None else [known])]
        self.older.setdefault((key, place), []).extend(before)
        self.must.discard((key, place))

    @rule(data=st.data(), kind=st.sampled_from(PurgeKind), soft=st.booleans(), numbered=st.booleans())
    def purge(self, data: st.DataObject, kind: PurgeKind, soft: bool, numbered: bool) -> None:
        values = {
            PurgeKind.URL: [key.partition(b" ")[0] for key in KEYS],
            PurgeKind.TAG: TAGS,
            PurgeKind.PREFIX: PREFIXES,
            PurgeKind.HOST: [b"x", b"y"],
            PurgeKind.ALL: [b""],
        }
        purge = Purge(kind, data.draw(st.sampled_from(values[kind])), soft)
        self.now += 1
        if numbered or kind not in (PurgeKind.URL, PurgeKind.TAG):
            self.number += 1
            self.journal.record(purge, self.now, self.number)
        with self.tier.recorded():
            self.purge_log.record(
                purge, self.now, self.number if numbered or kind not in (PurgeKind.URL, PurgeKind.TAG) else None
            )
        self.tier.forget(purge, self.now)
        if numbered or kind not in (PurgeKind.URL, PurgeKind.TAG):  # what the supervisor does before it acknowledges
            changer = Changer(self.tier.place, SMALL, durable=True)
            changer.purge([Numbered(self.number, [purge])], self.now)
            changer.close()
        for key, places in self.model.kept.items():
            for place, known in list(places.items()):
                if names(purge, key, known.tags):
                    if soft:
                        known.stale_at = self.now  # the last one is when it counts from
                    else:
                        del places[place]
                        self.must.discard((key, place))
        for (key, _), olds in [*self.older.items(), *self.back.items()]:
            for known in [known for known in olds if names(purge, key, known.tags)]:
                if soft:
                    known.stale_at = self.now  # the last one is when it counts from
                else:
                    olds.remove(known)

    @rule()
    def flush(self) -> None:
        assert self.tier.writer.flush()
        self.older.clear()

    @rule()
    def restart(self) -> None:
        self.tier.close()
        self.older.clear()
        self.open()

    @rule()
    def crash(self) -> None:
        """Killed now: a copy of the files is what the next start finds; what was not yet written may be lost."""
        copy = Path(tempfile.mkdtemp(prefix="tier-model-"))
        shutil.rmtree(copy)
        turn = os.open(self.folder / "store" / "turn", os.O_RDWR)
        fcntl.flock(turn, fcntl.LOCK_EX)  # between two transactions, as each of them is whole
        shutil.copytree(self.folder, copy, copy_function=_copied)
        os.close(turn)
        self.must.clear()
        for at, olds in self.older.items():
            self.back.setdefault(at, []).extend(olds)
        self.older.clear()
        self.tier.close()
        shutil.rmtree(self.folder)
        self.folder = copy
        self.open()

    @invariant()
    def finds_what_it_may_and_has_to(self) -> None:
        for key in KEYS:
            may = self.model.kept.get(key, {})
            found = looked(self.tier, key)
            seen = set()
            for stored in found:
                place = (stored.vary, None if stored.part is None else (stored.part.first, stored.part.last))
                seen.add(place)
                possible = [*([may[place]] if place in may else []), *self.back.get((key, place), [])]
                body = body_of(self.tier, stored)
                known = next((one for one in possible if one.body == body), None)
                assert known is not None, (key, place, "purged, removed or superseded")
                assert stored.tags == known.tags
                if known.stale_at is not None:
                    assert stored.fresh_until <= known.stale_at
                else:
                    assert stored.is_fresh(self.now)
            missing = {place for wanted, place in self.must if wanted == key} - seen
            assert not missing, (key, missing)

    def teardown(self) -> None:
        if hasattr(self, "tier"):
            self.tier.close()
            assert self.tier.damaged == 0 and self.tier.writer.errors == 0
            shutil.rmtree(self.folder)


def _copied(source: str, target: str) -> None:
    """A temporary file may go meanwhile."""
    with suppress(FileNotFoundError):
        shutil.copyfile(source, target)


TestTier = TierMachine.TestCase
TestTier.settings = settings(
    max_examples=30,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
