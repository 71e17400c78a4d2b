"""Regions: Envoy's tables, panic, the switch machine as a stateful property, the safety rule."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edge.balance.failover import FailoverState, Phase, PoolRegions, ask_failback, decide, ramping
from edge.balance.health import Admin, Health
from edge.balance.regions import (
    Failback,
    FailoverSettings,
    Mode,
    RegionHealth,
    RegionSpec,
    RouteNeed,
    RoutingView,
    Standing,
    eligible_regions,
    priority_loads,
    score,
    spill,
)

SPILL = FailoverSettings()
SWITCH = FailoverSettings(mode=Mode.SWITCH)


def levels(*percents: int) -> list[list[Standing]]:
    """One region in each level, so much of it available."""
    return [[Standing(RegionSpec(f"r{i}", tier=i), RegionHealth(percent, 100))] for i, percent in enumerate(percents)]


# Envoy's documentation, "Priority levels": percent healthy by level → percent of traffic by level.
@pytest.mark.parametrize(
    ("healthy", "traffic"),
    [
        ((100, 100), (100, 0)),
        ((72, 100), (100, 0)),
        ((71, 100), (99, 1)),
        ((50, 100), (70, 30)),
        ((25, 100), (35, 65)),
        ((0, 100), (0, 100)),
        ((72, 72), (100, 0)),
        ((71, 71), (99, 1)),
        ((50, 50), (70, 30)),
        ((25, 25), (50, 50)),
        ((100, 100, 100), (100, 0, 0)),
        ((72, 72, 100), (100, 0, 0)),
        ((71, 71, 100), (99, 1, 0)),
        ((50, 50, 100), (70, 30, 0)),
        ((25, 100, 100), (35, 65, 0)),
        ((25, 25, 100), (35, 35, 30)),
        ((25, 25, 20), (36, 36, 28)),
        ((5, 65), (7, 93)),
        ((0, 0), (100, 0)),
    ],
)
def test_envoys_priority_tables(healthy, traffic):
    shares, _ = spill(levels(*healthy), SPILL)
    assert tuple(shares.values()) == traffic


# Envoy's documentation, "Panic threshold" (50 %).
@pytest.mark.parametrize(
    ("healthy", "panic"),
    [
        ((72, 100), ()),
        ((50, 100), ()),
        ((25, 100), ()),
        ((0, 100), ()),
        ((71, 71), ()),
        ((50, 60), ()),
        ((25, 25), ("r0", "r1")),
        ((5, 65), ("r0",)),
        ((49,), ("r0",)),
        ((50,), ()),
        ((0, 0), ()),  # all down: the ladder, not panic
    ],
)
def test_envoys_panic_table(healthy, panic):
    assert spill(levels(*healthy), SPILL)[1] == frozenset(panic)


@given(st.lists(st.integers(0, 100), min_size=1, max_size=6))
def test_loads_sum_to_100_and_no_level_takes_more_than_it_can(scores):
    loads = priority_loads(scores)
    assert sum(loads) == 100
    assert all(load >= 0 for load in loads)
    if sum(scores) >= 100:
        assert all(load <= part for load, part in zip(loads, scores, strict=True))


def test_inside_a_tier_by_weight_and_availability():
    tier = [
        Standing(RegionSpec("a", weight=100), RegionHealth(4, 4)),
        Standing(RegionSpec("b", weight=50), RegionHealth(4, 4)),
    ]
    assert spill([tier], SPILL)[0] == pytest.approx({"a": 200 / 3, "b": 100 / 3})
    tier[0] = Standing(tier[0].spec, RegionHealth(1, 4))  # 100 × 0.35 to 50
    assert spill([tier], SPILL)[0] == pytest.approx({"a": 100 * 35 / 85, "b": 100 * 50 / 85})
    assert score(tier, 1.4) == 87


EU = RegionSpec("eu", tier=0)
US = RegionSpec("us", tier=1)
WELL, DEAD = RegionHealth(4, 4), RegionHealth(0, 4)


class Clock:
    """Two regions under one machine, driven by time."""

    def __init__(self, settings: FailoverSettings, regions: tuple[RegionSpec, ...] = (EU, US)) -> None:
        self.spec = PoolRegions(regions, settings)
        self.admin: dict[str, Admin] = {}
        self.health = {region.name: WELL for region in regions}
        self.state = FailoverState()
        self.now = 0.0
        self.events: list[tuple[float, str, str]] = []
        self.view = RoutingView()
        self.run(0.0)

    def run(self, seconds: float, step: float = 0.5) -> dict[str, float]:
        end = self.now + seconds
        while True:
            self.view, self.state, events = decide(self.spec, self.admin, self.health, self.state, self.now)
            self.events += [(event.at, event.kind, event.subject) for event in events]
            if self.now >= end:
                return dict(self.view.shares)
            self.now = min(end, self.now + step)

    def kinds(self) -> list[str]:
        return [kind for _, kind, _ in self.events]


def test_spill_takes_all_traffic_off_a_dead_region_at_once_and_brings_it_back_slowly():
    clock = Clock(SPILL)
    assert clock.run(1.0) == {"eu": 100}
    clock.health["eu"] = DEAD
    assert clock.run(0.0) == {"us": 100}
    assert clock.view.order == ("us", "eu")
    clock.now += 30
    clock.health["eu"] = WELL
    assert clock.run(0.0) == {"eu": 14, "us": 86}  # 10 % of 140
    shares = [clock.run(10.0)["eu"] for _ in range(6)]
    assert shares == sorted(shares)
    assert shares[-1] == 100


def test_switch_walks_through_its_phases_by_the_clock():
    clock = Clock(SWITCH)
    clock.run(100.0)
    clock.health["eu"] = DEAD
    assert clock.run(2.5) == {"eu": 100}
    assert clock.state.phase is Phase.SUSPECT
    assert clock.run(0.5) == {"us": 100}
    assert clock.state.phase is Phase.FAILED_OVER
    clock.run(300.0)
    clock.health["eu"] = WELL
    clock.run(0.0)
    assert clock.state.phase is Phase.RECOVERING
    assert clock.run(59.5) == {"us": 100}  # the hold-down runs from recovery, long after the switch
    assert clock.run(0.5) == {"eu": 10, "us": 90}
    assert clock.state.phase is Phase.RAMP
    assert clock.run(30.0) == pytest.approx({"eu": 55, "us": 45})
    assert clock.run(30.0) == {"eu": 100}
    assert clock.state.phase is Phase.OK


def test_a_short_dip_moves_nothing():
    clock = Clock(SWITCH)
    clock.health["eu"] = DEAD
    clock.run(2.5)
    clock.health["eu"] = WELL
    clock.run(10.0)
    assert (clock.state.phase, clock.state.moved_at) == (Phase.OK, float("-inf"))


def test_a_break_during_the_hold_down_or_the_ramp_starts_it_again():
    clock = Clock(SWITCH)
    clock.health["eu"] = DEAD
    clock.run(5.0)
    clock.health["eu"] = WELL
    clock.run(50.0)
    clock.health["eu"] = DEAD
    clock.run(0.0)
    clock.health["eu"] = WELL
    clock.run(0.0)
    assert clock.run(59.0) == {"us": 100}
    clock.run(20.0)
    assert clock.state.phase is Phase.RAMP
    clock.health["eu"] = DEAD
    assert clock.run(0.0) == {"us": 100}
    assert clock.state.phase is Phase.FAILED_OVER


@pytest.mark.parametrize(("mode", "back"), [(Failback.AUTO, True), (Failback.MANUAL, False), (Failback.NEVER, False)])
def test_failback_modes(mode, back):
    clock = Clock(FailoverSettings(mode=Mode.SWITCH, failback=mode))
    clock.health["eu"] = DEAD
    clock.run(5.0)
    clock.health["eu"] = WELL
    assert (clock.run(400.0) == {"eu": 100}) is back
    clock.state = ask_failback(clock.state)
    assert (clock.run(130.0) == {"eu": 100}) is (mode is not Failback.NEVER)


def test_the_secondary_dying_during_the_ramp_completes_it():
    clock = Clock(SWITCH)
    clock.health["eu"] = DEAD
    clock.run(5.0)
    clock.health["eu"] = WELL
    clock.run(70.0)
    assert clock.state.phase is Phase.RAMP
    clock.health["us"] = DEAD
    assert clock.run(0.0) == {"eu": 100}


def test_three_switches_in_ten_minutes_freeze_on_the_secondary():
    quick = FailoverSettings(mode=Mode.SWITCH, up_after_s=10, ramp_s=10)
    clock = Clock(quick)
    for _ in range(6):
        clock.health["eu"] = DEAD
        clock.run(70.0)
        clock.health["eu"] = WELL
        clock.run(70.0)
    assert clock.kinds().count("region-switch") == 3
    assert "region-frozen" in clock.kinds()
    assert clock.state.frozen
    assert clock.run(0.0) == {"us": 100}
    clock.run(700.0)  # ten minutes without a break end it
    assert clock.view.shares == {"eu": 100}
    assert "region-thawed" in clock.kinds()


def test_an_operator_ends_a_freeze():
    state = ask_failback(FailoverState(frozen=True, switches=(1.0, 2.0, 3.0)))
    assert not state.frozen
    assert state.switches == ()


@pytest.mark.parametrize("settings", [SPILL, SWITCH, FailoverSettings(mode=Mode.SWITCH, failback=Failback.MANUAL)])
@pytest.mark.parametrize("drained_s", [1.0, 200.0])
def test_what_an_operator_drained_has_its_traffic_back_at_once_when_it_was_well(settings, drained_s):
    clock = Clock(settings)
    clock.run(100.0)
    clock.admin["eu"] = Admin.DRAINING
    assert clock.run(0.0) == {"us": 100}
    assert "eu" not in clock.view.order
    clock.run(drained_s)
    clock.admin["eu"] = Admin.ACTIVE
    assert clock.run(0.0) == {"eu": 100}
    assert clock.run(100.0) == {"eu": 100}


@pytest.mark.parametrize(("settings", "share"), [(SPILL, 14), (SWITCH, None)])
def test_what_was_ill_while_it_was_drained_comes_back_slowly(settings, share):
    clock = Clock(settings)
    clock.run(100.0)
    clock.admin["eu"] = Admin.DRAINING
    clock.run(100.0)
    clock.health["eu"] = DEAD
    clock.run(10.0)
    clock.health["eu"] = WELL
    clock.run(0.0)
    clock.admin["eu"] = Admin.ACTIVE
    assert clock.run(0.0).get("eu") == share


def test_a_return_is_told_in_both_modes_and_how_far_it_is():
    for how, hold_s in ((SPILL, 0.0), (SWITCH, 60.0)):
        clock = Clock(how)
        clock.run(100.0)
        assert ramping("eu", clock.state, how, clock.now) is None
        clock.health["eu"] = DEAD
        clock.run(100.0)
        clock.health["eu"] = WELL
        clock.run(hold_s)
        clock.run(30.0)
        assert ramping("eu", clock.state, how, clock.now) == pytest.approx(0.55)
        clock.run(31.0)
        assert ramping("eu", clock.state, how, clock.now) is None
        told = [kind for kind in clock.kinds() if kind in ("region-ramp", "region-ok")]
        assert told[:1] == ["region-ramp"]
        assert how is SWITCH or told == ["region-ramp", "region-ok"]


def test_inactive_gets_nothing_even_when_all_else_is_dead_unless_it_is_a_last_resort():
    for resort in (False, True):
        clock = Clock(SPILL, (EU, RegionSpec("us", tier=1, last_resort=resort)))
        clock.admin["us"] = Admin.INACTIVE
        assert clock.run(1.0) == {"eu": 100}
        assert clock.view.last_resort == (("us",) if resort else ())
        clock.health["eu"] = DEAD
        assert clock.run(0.0) == ({"us": 100} if resort else {"eu": 100})
        assert ("us" in clock.view.order) is resort


def test_no_active_region_means_no_shares():
    clock = Clock(SPILL)
    clock.admin.update(eu=Admin.INACTIVE, us=Admin.DRAINING)
    clock.run(0.0)
    assert clock.view == RoutingView()


def test_by_latency_the_faster_region_of_a_tier_is_preferred_with_hysteresis():
    pair = (RegionSpec("a"), RegionSpec("b"))
    clock = Clock(FailoverSettings(by_latency=True), pair)
    clock.health = {"a": RegionHealth(4, 4, 0.05), "b": RegionHealth(4, 4, 0.06)}
    assert clock.run(0.0) == {"a": 100}
    clock.health["b"] = RegionHealth(4, 4, 0.02)
    assert clock.run(29.5) == {"a": 100}
    assert clock.run(0.5) == {"b": 100}
    clock.health["b"] = RegionHealth(2, 4, 0.02)
    assert clock.run(0.0) == {"b": 70, "a": 30}


def test_a_view_survives_the_link():
    view = RoutingView({"a": 70.0, "b": 30.0}, ("a", "b"), frozenset({"a"}), frozenset({"b"}), ("c",))
    assert RoutingView.from_dict(view.as_dict()) == view


def test_region_health_in_one_word():
    assert RegionHealth(4, 4).verdict(0.5) is Health.HEALTHY
    assert RegionHealth(2, 4).verdict(0.5) is Health.DEGRADED
    assert RegionHealth(1, 4).verdict(0.5) is Health.UNHEALTHY
    assert RegionHealth(4, 4, None, True).verdict(0.5) is Health.UNKNOWN
    assert RegionHealth(0, 0).verdict(0.0) is Health.UNHEALTHY


def test_which_routes_the_eligible_regions_serve():
    specs = (EU, US, RegionSpec("ap", last_resort=True))
    routes = [
        RouteNeed("free", frozenset({"eu", "us"})),
        RouteNeed("fenced", frozenset({"eu", "us"}), frozenset({"eu"})),
        RouteNeed("resort", frozenset({"eu", "ap"}), frozenset({"eu", "ap"})),
        RouteNeed("hopeless", frozenset({"gone"})),
    ]
    before = eligible_regions(specs, {})
    without_eu = eligible_regions(specs, {"eu": Admin.INACTIVE})
    none = eligible_regions(specs, {"eu": Admin.INACTIVE, "us": Admin.DRAINING})
    served = [[route.name for route in routes if route.served(eligible)] for eligible in (before, without_eu, none)]
    assert served == [["free", "fenced", "resort"], ["free", "resort"], ["resort"]]


class Machine(RuleBasedStateMachine):
    """Any sequence of health changes, operator's words and clock steps."""

    settings_of = SWITCH

    def __init__(self) -> None:
        super().__init__()
        self.specs = tuple(RegionSpec(name, tier=i // 2, last_resort=name == "d") for i, name in enumerate("abcd"))
        self.clock = Clock(self.settings_of, self.specs)
        self.by_health: list[float] = []

    @rule(name=st.sampled_from("abcd"), available=st.integers(0, 4))
    def health(self, name: str, available: int) -> None:
        self.clock.health[name] = RegionHealth(available, 4)

    @rule(name=st.sampled_from("abcd"), admin=st.sampled_from(Admin))
    def operate(self, name: str, admin: Admin) -> None:
        self.clock.admin[name] = admin

    @rule(seconds=st.sampled_from([0.0, 0.4, 3.0, 11.0, 61.0, 200.0]))
    def wait(self, seconds: float) -> None:
        self.clock.run(0.0)
        self.clock.run(seconds, step=max(1.0, seconds / 20))

    @invariant()
    def dwell(self) -> None:
        for earlier, later in pairwise(self.clock.state.switches):
            assert later - earlier >= self.settings_of.min_dwell_s

    @invariant()
    def only_eligible_regions(self) -> None:
        self.clock.run(0.0)
        view = self.clock.view
        active = {s.name for s in self.specs if self.clock.admin.get(s.name, Admin.ACTIVE) is Admin.ACTIVE}
        assert {*view.shares, *view.order} <= active | {"d"}
        if "d" in {*view.shares, *view.order} - active:
            assert not any(self.clock.health[name].available for name in active)
        assert set(view.last_resort) <= {"d"} - active
        assert active <= set(view.order)

    @invariant()
    def shares_sum_to_100(self) -> None:
        shares = self.clock.view.shares
        assert not self.clock.view.order or sum(shares.values()) == pytest.approx(100)
        assert all(0 < share <= 100 + 1e-9 for share in shares.values())


class SpillMachine(Machine):
    settings_of = FailoverSettings(by_latency=True)


TestSwitchMachine = Machine.TestCase
TestSwitchMachine.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestSpillMachine = SpillMachine.TestCase
TestSpillMachine.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.floats(0.1, 90)), max_size=120))
@settings(max_examples=60, deadline=None)
def test_switches_by_health_never_exceed_the_dwell_bound(steps):
    clock = Clock(FailoverSettings(mode=Mode.SWITCH, freeze_after=10**6, up_after_s=0, ramp_s=0, down_after_s=0))
    for eu, us, seconds in steps:
        clock.health = {"eu": RegionHealth(eu, 4), "us": RegionHealth(us, 4)}
        clock.run(0.0)
        clock.now += seconds
    moves = [at for at, kind, _ in clock.events if kind == "region-switch"]
    assert all(later - earlier >= 60 for earlier, later in pairwise(moves))
