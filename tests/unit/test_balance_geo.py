"""Place to regions: the order of levels, overrides, the two keys, unknown places."""

from __future__ import annotations

from ipaddress import ip_address
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.balance.geo import ClientPlace, GeoMap, GeoPolicy, Level, Unknown, distance_km
from edge.balance.regions import RegionSpec

EU = RegionSpec("eu-west", 0, 100, (53.3, -6.3), ("IE", "GB", "FR"), ("EU",))
DE = RegionSpec("eu-central", 0, 100, (50.1, 8.7), ("DE",), ("EU",))
US = RegionSpec("us-east", 1, 100, (38.9, -77.5), (), ("NA", "SA"))
CA = RegionSpec("us-west", 1, 100, (37.3, -121.9), (), ("NA",), ("US-CA",))
MAP = GeoMap(
    [US, EU, DE, CA], [("203.0.113.0/24", "us-east"), ("203.0.113.128/25", "us-west"), ("2001:db8::/32", "eu-west")]
)


@pytest.mark.parametrize(
    ("place", "level", "order"),
    [
        (ClientPlace("US", "US-CA", "NA", 34.0, -118.2), Level.SUBDIVISION, "us-west us-east eu-west eu-central"),
        (ClientPlace("DE", "", "EU", 48.1, 11.6), Level.COUNTRY, "eu-central eu-west us-east us-west"),
        (ClientPlace("FR", "", "EU", 48.6, 7.8), Level.COUNTRY, "eu-west eu-central us-east us-west"),  # not the nearer
        (ClientPlace("PL", "", "EU", 52.2, 21.0), Level.CONTINENT, "eu-central eu-west us-east us-west"),
        (ClientPlace("US", "US-NY", "NA", 40.7, -74.0), Level.CONTINENT, "us-east us-west eu-west eu-central"),
        (ClientPlace("JP", "", "AS", 35.7, 139.7), Level.DISTANCE, "us-west eu-central eu-west us-east"),
        (ClientPlace("JP", "", "AS"), Level.DEFAULT, "eu-west eu-central us-east us-west"),
        (ClientPlace(unknown=Unknown.PRIVATE), Level.DEFAULT, "eu-west eu-central us-east us-west"),
    ],
)
def test_levels_in_order(place, level, order):
    decision = MAP.decide(place)
    assert (decision.level, " ".join(decision.order)) == (level, order)
    assert decision.unknown is place.unknown
    assert MAP.decide(place) is decision  # warm


@pytest.mark.parametrize(
    ("ip", "first"),
    [
        ("203.0.113.5", "us-east"),
        ("203.0.113.200", "us-west"),  # the longest prefix
        ("::ffff:203.0.113.200", "us-west"),
        ("2001:db8::1", "eu-west"),
        ("198.51.100.1", None),
        ("cb00:7105::", None),  # an IPv6 address with the same first bits
    ],
)
def test_overrides_come_before_the_place(ip, first):
    decision = MAP.decide(ClientPlace("DE", "", "EU"), ip_address(ip))
    assert decision.order[0] == (first or "eu-central")
    assert decision.level is (Level.OVERRIDE if first else Level.COUNTRY)


def test_prefer_only_orders_and_require_only_fences():
    place = ClientPlace("DE", "", "EU")
    assert MAP.decide(place, None, GeoPolicy(("us-west",))).order == ("us-west", "eu-central", "eu-west", "us-east")
    fenced = MAP.decide(place, None, GeoPolicy(("us-west",), frozenset({"eu-west", "us-east"})))
    assert fenced.order == ("eu-west", "us-east")
    assert fenced.level is Level.CONTINENT
    assert MAP.decide(place, ip_address("203.0.113.5"), GeoPolicy((), frozenset({"eu-west"}))).order == ("eu-west",)
    refused = MAP.decide(place, None, GeoPolicy((), frozenset({"gone"})))
    assert (refused.order, refused.level) == ((), Level.REFUSED)


@given(
    st.builds(
        ClientPlace,
        st.sampled_from(["", "DE", "US", "JP"]),
        st.sampled_from(["", "US-CA"]),
        st.sampled_from(["", "EU", "NA", "AS"]),
        st.none() | st.floats(-90, 90),
        st.none() | st.floats(-180, 180),
        st.none(),
    ),
    st.none() | st.frozensets(st.sampled_from(["eu-west", "us-east", "us-west", "gone"])),
)
def test_every_region_inside_the_fence_once_and_none_outside(place, fence):
    order = MAP.decide(place, None, GeoPolicy((), fence)).order
    names = {"eu-west", "eu-central", "us-east", "us-west"}
    assert sorted(order) == sorted(names if fence is None else names & fence)


def test_distance():
    assert distance_km((52.5, 13.4), (48.85, 2.35)) == pytest.approx(878, abs=5)  # Berlin, Paris
    assert distance_km((0, 179), (0, -179)) == pytest.approx(222.4, abs=1)  # across the date line
    assert distance_km((90, 0), (-90, 0)) == pytest.approx(20015, abs=5)


@pytest.mark.parametrize(("net", "region"), [("203.0.113.1/24", "eu-west"), ("x", "eu-west"), ("10.0.0.0/8", "gone")])
def test_a_malformed_override_is_refused(net, region):
    with pytest.raises(ValueError):
        GeoMap([EU], [(net, region)])


@given(st.floats(-90, 90), st.floats(-180, 180))
def test_the_order_by_distance_is_that_of_the_great_circle(lat, lon):
    order = MAP.decide(ClientPlace("JP", "", "AS", lat, lon)).order
    locations = {region.name: region.location for region in (US, EU, DE, CA)}
    far = [distance_km((lat, lon), locations[name]) for name in order]
    assert all(near <= further + 0.01 for near, further in pairwise(far))
