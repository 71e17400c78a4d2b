"""The safety rule: whatever operators do without force, no route that was served is left without a region."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.balance.backend import BackendSpec
from edge.balance.health import Admin
from edge.balance.regions import RegionSpec
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


def test_a_last_resort_counts_although_inactive() -> None:
    now = start()
    for name in ("eu", "ap"):
        now = now.with_region(replace(now.regions[name], admin=Admin.INACTIVE))
    assert now.unserved(ROUTES) == {"other"}
    now = now.with_region(replace(now.regions["us"], admin=Admin.INACTIVE))
    assert now.unserved(ROUTES) == {"other", "fenced"}
