"""The safety rule: whatever operators do without force, no route that was served is left without a region."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.balance.backend import BackendSpec
from edge.balance.health import Admin
from edge.balance.regions import RegionSpec
from edge.control.changes import By, changes
from edge.control.membership import BackendEntry, Membership, RegionEntry, Route, Source

REGIONS = ("eu", "us", "ap")
ROUTES = (Route("any", "web", None), Route("fenced", "web", frozenset(("us",))), Route("other", "api", None))


def start() -> Membership:
    found = Membership()
    for name in REGIONS:
        found = found.with_region(RegionEntry(RegionSpec(name, last_resort=name == "ap"), Source.FILE))
    for pool, identity, region in (("web", "1", "eu"), ("web", "2", "us"), ("web", "3", "ap"), ("api", "1", "eu")):
        spec = BackendSpec(identity, pool, "http", "h", 1, b"h:1", region)
        found = found.with_backend(BackendEntry(spec, Source.FILE))
    return found


CHANGES = st.lists(
    st.tuples(
        st.sampled_from([*REGIONS, ("web", "1"), ("web", "2"), ("web", "3"), ("api", "1")]),
        st.sampled_from([*Admin, None]),
    ),
    max_size=12,
)


@settings(max_examples=200)
@given(CHANGES)
def test_no_route_loses_its_last_region(changes: list[tuple[str | tuple[str, str], Admin | None]]) -> None:
    now = start()
    assert now.unserved(ROUTES) == set()
    for what, state in changes:
        after = now
        if isinstance(what, str) and state is not None:
            after = now.with_region(replace(now.regions[what], admin=state))
        elif not isinstance(what, str) and what in now.backends:
            entry = now.backends[what]
            after = now.without_backend(what) if state is None else now.with_backend(replace(entry, admin=state))
        if not after.unserved(ROUTES) - now.unserved(ROUTES):
            now = after
        assert now.unserved(ROUTES) == set()
        assert now.backends["api", "1"].admin is Admin.ACTIVE
        assert now.regions["us"].admin is Admin.ACTIVE


@settings(max_examples=200)
@given(CHANGES)
def test_every_change_is_told_with_who_and_why(steps: list[tuple[str | tuple[str, str], Admin | None]]) -> None:
    now, by = start(), By("me", "because")
    for what, state in steps:
        before = now
        if isinstance(what, str):
            now = now.with_region(replace(now.regions[what], admin=state)) if state is not None else now
        elif what in now.backends:
            entry = now.backends[what]
            now = now.without_backend(what) if state is None else now.with_backend(replace(entry, admin=state))
        else:
            now = now.with_backend(start().backends[what])
        told = list(changes(before, now, by))
        assert bool(told) == (before != now)
        for kind, facts in told:
            assert (facts["actor"], facts["reason"]) == ("me", "because")
            assert kind in ("region.admin", "backend.admin", "backend.added", "backend.removed")
            assert facts.get("region", (facts.get("pool"), facts.get("backend"))) == what
    entry = now.regions["eu"]
    moved = now.with_region(replace(entry, spec=replace(entry.spec, tier=7)))
    assert [kind for kind, _ in changes(now, moved)] == ["region.changed"]


def test_a_last_resort_counts_although_inactive() -> None:
    now = start()
    for name in ("eu", "ap"):
        now = now.with_region(replace(now.regions[name], admin=Admin.INACTIVE))
    assert now.unserved(ROUTES) == {"other"}
    now = now.with_region(replace(now.regions["us"], admin=Admin.INACTIVE))
    assert now.unserved(ROUTES) == {"other", "fenced"}
