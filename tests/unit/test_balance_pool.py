"""The pool: in flight back to zero, the fence on every rung, FULL against NONE, ejection, slow start, reload."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge.balance.backend import AttemptOutcome, Backend, BackendSpec
from edge.balance.health import Admin, Health
from edge.balance.pool import BalanceSettings, PickResult, Pool
from edge.balance.regions import RoutingView

PLAIN = BalanceSettings(slow_start_s=0.0)
UP, DOWN = Health.HEALTHY, Health.UNHEALTHY


def backend(name: str, region: str = "eu", weight: int = 1, limit: int | None = None, probed: bool = False) -> Backend:
    return Backend(BackendSpec(name, "p", "http", "10.0.0.1", 80, b"10.0.0.1", region, weight, limit), probed)


def pool(*backends: Backend, policy: str = "round-robin", how: BalanceSettings = PLAIN) -> Pool:
    return Pool("p", backends, policy, how, random.Random(5).randrange)


def view(*order: str, **shares: float) -> RoutingView:
    return RoutingView(shares, order or tuple(shares), frozenset(order or shares))


def two_regions(**kwargs: object) -> Pool:
    return pool(backend("e1"), backend("e2"), backend("u1", "us"), backend("u2", "us"), **kwargs)  # type: ignore[arg-type]


def fail(target: Backend, times: int, now: float) -> None:
    for _ in range(times):
        target.observe(AttemptOutcome.GATEWAY_FAILURE, 0.01, now)


# -- regions -----------------------------------------------------------------------------------------------------------


def test_regions_get_their_shares_closely():
    p = two_regions()
    p.apply(view(eu=70.0, us=30.0))
    counts = Counter(p.pick(0.0).region for _ in range(1000))
    assert abs(counts["eu"] - 700) <= 5
    fenced = Counter(p.pick(0.0, fence=frozenset({"eu", "us"})).region for _ in range(1000))
    assert abs(fenced["eu"] - 700) <= 20


def test_a_region_that_ran_empty_leaves_its_share_to_the_others_at_once():
    p = two_regions()
    p.apply(view("eu", "us", eu=100.0))
    for b in p.backends[:2]:
        b.set_health(DOWN, 0.0)
    assert {p.pick(0.0).region for _ in range(10)} == {"us"}


def test_hash_keeps_a_key_in_its_region():
    p = two_regions(policy="hash")
    p.apply(view(eu=50.0, us=50.0))
    assert all(p.pick(0.0, hint) is p.pick(0.0, hint) for hint in range(300))
    assert len({p.pick(0.0, hint).id for hint in range(300)}) == 4


def test_geo_order_first_eligible_region_wins():
    p = two_regions(policy="geo")
    p.apply(view("eu", "us", eu=100.0))
    assert p.pick(0.0, regions=("us", "eu")).region == "us"
    p.apply(RoutingView({"eu": 100.0}, ("eu", "us"), frozenset({"eu"})))  # us is not well, though not empty
    assert p.pick(0.0, regions=("us", "eu")).region == "eu"
    assert p.pick(0.0, regions=("us",)).region == "us"
    p.apply(view(eu=100.0))  # us is inactive
    assert p.pick(0.0, regions=("us",)) is None


def test_a_geo_order_never_leads_out_of_the_fence():
    p = two_regions(policy="geo")
    p.apply(view("eu", "us", eu=100.0))
    fence = frozenset({"eu"})
    assert {p.pick(0.0, 0, (), ("us", "eu"), fence).region for _ in range(10)} == {"eu"}
    for b in p.backends[:2]:
        b.set_health(DOWN, 0.0)
    assert p.pick(0.0, 0, (), ("us", "eu"), fence) is None
    assert p.verdict is PickResult.NONE


def test_a_retry_takes_the_same_region_first_then_the_next_and_never_leaves_the_fence():
    p = two_regions()
    p.apply(view("us", "eu", us=100.0))
    tried: list[Backend] = []
    while (found := p.pick(0.0, 0, tried)) is not None:
        tried.append(found)
    assert [b.region for b in tried] == ["us", "us", "eu", "eu"]
    assert len(set(tried)) == 4
    fence = frozenset({"us"})
    first = p.pick(0.0, fence=fence)
    second = p.pick(0.0, 0, [first], None, fence)
    assert {first.id, second.id} == {"u1", "u2"}
    assert p.pick(0.0, 0, [first, second], None, fence) is None
    geo_tried = [p.get("e1")]
    assert p.pick(0.0, 0, geo_tried, ("us", "eu")).id == "e2"


def test_the_third_attempt_leaves_a_region_that_failed_twice():
    p = pool(*(backend(f"e{i}") for i in range(4)), backend("u1", "us"))
    p.apply(view("eu", "us", eu=100.0))
    tried: list[Backend] = []
    while (found := p.pick(0.0, 0, tried)) is not None:
        tried.append(found)
    assert [b.region for b in tried] == ["eu", "eu", "us", "eu", "eu"]
    alone = p.pick(0.0, 0, tried[:2], None, frozenset({"eu"}))
    assert alone.region == "eu"


def test_last_resort_serves_only_after_everything_else():
    p = two_regions()
    p.apply(RoutingView({"eu": 100.0}, ("eu",), frozenset({"eu"}), last_resort=("us",)))
    assert {p.pick(0.0).region for _ in range(10)} == {"eu"}
    for b in p.backends[:2]:
        b.set_health(DOWN, 0.0)
    assert p.pick(0.0).region == "us"
    assert p.pick(0.0, fence=frozenset({"eu"})) is None


# -- the ladder --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rung", ["none", "fallback", "fail-open", "panic"])
def test_the_fence_holds_on_every_rung(rung):
    p = two_regions(how=BalanceSettings(fail_open=rung == "fail-open"))
    p.fallback = two_regions() if rung == "fallback" else None
    panic = frozenset({"eu", "us"}) if rung == "panic" else frozenset()
    p.apply(RoutingView({"eu": 50.0, "us": 50.0}, ("eu", "us"), frozenset({"eu", "us"}), panic))
    for b in p.backends:
        b.set_health(DOWN, 0.0)
    for region in ("eu", "us"):
        fence = frozenset({region})
        found = {b.region if (b := p.pick(0.0, fence=fence)) else None for _ in range(20)}
        assert found == ({None} if rung == "none" else {region})
        retry = {b.region if (b := p.pick(0.0, 0, [p.get("e1")], None, fence)) else None for _ in range(20)}
        assert retry == ({None} if rung == "none" else {region})
    assert p.pick(0.0, fence=frozenset({"mars"})) is None
    assert p.verdict is PickResult.NONE
    assert p.pick(0.0, fence=frozenset()) is None


def test_the_fallback_pool_comes_before_fail_open_and_only_when_all_are_down():
    p = two_regions(how=BalanceSettings(fail_open=True))
    p.fallback = pool(backend("f1"))
    first = p.pick(0.0)
    assert first.id != "f1"
    for b in p.backends:
        b.set_health(DOWN, 0.0)
    assert p.pick(0.0).id == "f1"
    p.fallback.backends[0].set_admin(Admin.DRAINING, 0.0)
    assert p.pick(0.0).id != "f1"


def test_panic_ignores_health_but_never_a_drain():
    p = two_regions()
    p.apply(RoutingView({"eu": 100.0}, ("eu", "us"), frozenset(), frozenset({"eu"})))
    p.get("e1").set_health(DOWN, 0.0)
    assert {p.pick(0.0).id for _ in range(10)} == {"e1", "e2"}
    p.get("e2").set_admin(Admin.DRAINING, 0.0)
    assert {p.pick(0.0).id for _ in range(10)} == {"e1"}


# -- limits ------------------------------------------------------------------------------------------------------------


def test_full_is_not_none():
    p = pool(backend("a", limit=1), backend("b", "us", limit=2))
    p.apply(view("eu", "us", eu=100.0))
    picked = []
    for _ in range(3):
        found = p.pick(0.0)
        found.take(0.0)
        picked.append(found.id)
    assert picked == ["a", "b", "b"]
    assert p.pick(0.0) is None
    assert p.verdict is PickResult.FULL
    assert p.is_full(0.0)
    assert not p.is_full(0.0, frozenset({"mars"}))
    p.get("a").give_back(0.0)
    assert p.pick(0.0).id == "a"
    for b in p.backends:
        b.set_health(DOWN, 0.0)
    assert p.pick(0.0) is None
    assert p.verdict is PickResult.NONE
    assert not p.is_full(0.0)


def test_a_full_fallback_is_worth_waiting_for():
    p, other = pool(backend("a")), Pool("q", [backend("z", limit=1)], "round-robin", PLAIN, random.Random(5).randrange)
    p.fallback = other
    p.get("a").set_health(DOWN, 0.0)
    assert not p.is_full(0.0)
    other.get("z").take(0.0)
    assert p.pick(0.0) is None
    assert p.is_full(0.0)
    p.get("a").set_health(UP, 0.0)
    assert not p.is_full(0.0), "its own backend has room"


def test_a_full_backend_does_not_open_the_ladder():
    p = pool(backend("a", limit=1))
    p.fallback = pool(backend("f"))
    p.pick(0.0).take(0.0)
    assert p.pick(0.0) is None
    assert p.verdict is PickResult.FULL


def test_giving_back_twice_is_an_error():
    b = backend("a")
    b.take(0.0)
    b.give_back(0.0)
    with pytest.raises(AssertionError):
        b.give_back(0.0)
    assert b.in_flight == 0


# -- health and ejection -----------------------------------------------------------------------------------------------


def test_unknown_serves_only_while_nobody_is_known_to_be_well():
    p = pool(backend("a", probed=True), backend("b", probed=True))
    assert {p.pick(0.0).id for _ in range(4)} == {"a", "b"}
    p.apply_health({"a": UP, "who": UP}, 0.0)
    assert {p.pick(0.0).id for _ in range(4)} == {"a"}
    p.apply_health({"b": UP}, 0.0)
    assert {p.pick(0.0).id for _ in range(4)} == {"a", "b"}


def test_five_failures_in_a_row_eject_for_a_growing_time_and_a_trial_brings_it_back():
    p = pool(backend("a"), backend("b"))
    a = p.get("a")
    p.pick(0.0)
    fail(a, 4, 0.0)
    a.observe(AttemptOutcome.SUCCESS, 0.01, 0.0)
    fail(a, 4, 0.0)
    assert a.available(0.0)
    fail(a, 1, 0.0)
    assert not a.available(0.0)
    assert {p.pick(4.9).id for _ in range(4)} == {"b"}
    picked = {p.pick(5.0).id for _ in range(4)}
    assert picked == {"a", "b"}
    a.take(5.0)  # half open: one at a time
    assert {p.pick(5.0).id for _ in range(4)} == {"b"}
    fail(a, 1, 5.0)
    a.give_back(5.0)
    assert {p.pick(14.9).id for _ in range(4)} == {"b"}  # twice as long
    assert {p.pick(15.0).id for _ in range(4)} == {"a", "b"}
    a.take(15.0)
    a.observe(AttemptOutcome.SUCCESS, 0.01, 15.0)
    assert {p.pick(15.0).id for _ in range(4)} == {"a", "b"}
    a.give_back(15.0)
    kinds = [(event.kind, event.subject) for event in p.take_events()]
    assert kinds == [("ejected", "a"), ("ejected", "a"), ("readmitted", "a")]


def test_bodies_that_break_off_eject_like_any_failure_and_a_whole_one_is_the_success():
    p = pool(backend("a"), backend("b"))
    a = p.get("a")
    p.pick(0.0)
    for _ in range(5):
        a.answered(0.01, 0.0)  # each time a good head came, and then no whole body
        fail(a, 1, 0.0)
    assert not a.available(0.0)
    p.pick(5.0)
    assert a.half_open
    a.answered(0.01, 5.0)
    assert a.half_open, "a head alone proves nothing"
    a.succeeded(5.0)
    assert not a.half_open
    for _ in range(4):
        fail(a, 1, 6.0)
    a.answered(0.01, 6.0)
    a.succeeded(6.0)
    fail(a, 4, 6.0)
    assert a.available(6.0), "a whole body ends the row"


@pytest.mark.parametrize("on_trial", [False, True])
def test_an_ejection_that_probes_confirmed_is_over_when_they_are_well_again(on_trial):
    p = pool(backend("a", probed=True), backend("b", probed=True))
    a = p.get("a")
    for each in p.backends:
        each.set_health(UP, 0.0)
    fail(a, 5, 0.0)
    if on_trial:
        assert {p.pick(5.0).id for _ in range(4)} == {"a", "b"}
    fail(a, 1, 5.0)  # ejected again, for longer, when it was on trial
    a.set_health(DOWN, 5.0)
    assert not a.is_in(6.0)
    a.set_health(UP, 6.0)
    assert a.is_in(6.0)
    assert {p.pick(6.0).id for _ in range(40)} == {"a", "b"}
    assert p.take_events()[-1].kind == "readmitted"
    fail(a, 5, 7.0)
    a.set_health(UP, 8.0)  # its probes never said anything against it
    assert not a.is_in(8.0)


def test_neutral_outcomes_never_count():
    p = pool(backend("a"), backend("b"))
    p.pick(0.0)
    for _ in range(100):
        p.get("a").observe(AttemptOutcome.NEUTRAL, 9.0, 0.0)
    assert p.get("a").available(0.0)
    assert not p.get("a").latency.known
    fail(p.get("a"), 4, 0.0)
    p.get("a").observe(AttemptOutcome.NEUTRAL, 0.0, 0.0)  # nor do they break a row
    fail(p.get("a"), 1, 0.0)
    assert not p.get("a").available(0.0)


def test_never_more_than_half_and_never_the_last():
    for count, most in ((1, 0), (2, 1), (3, 1), (4, 2), (5, 2)):
        p = pool(*(backend(f"b{i}") for i in range(count)))
        p.pick(0.0)
        for b in p.backends:
            fail(b, 20, 0.0)
        assert sum(not b.available(0.0) for b in p.backends) == most
    p = pool(*(backend(f"b{i}") for i in range(4)))
    p.pick(0.0)
    for b in p.backends[1:]:
        b.set_health(DOWN, 0.0)
    fail(p.backends[0], 20, 0.0)
    assert p.pick(0.0).id == "b0"
    assert p.take_events()[-1].kind == "ejection-refused"


def test_when_probes_take_the_rest_the_ejected_serve_again():
    p = pool(backend("a"), backend("b"))
    p.pick(0.0)
    fail(p.get("a"), 5, 0.0)
    p.get("b").set_health(DOWN, 1.0)
    assert p.pick(1.0).id == "a"


def test_without_ejection_nothing_is_ejected():
    p = pool(backend("a"), backend("b"), how=BalanceSettings(ejection=None))
    p.pick(0.0)
    fail(p.get("a"), 50, 0.0)
    assert p.get("a").available(0.0)


def test_a_whole_region_killed_leaves_to_the_other_by_live_failures_alone():
    p = two_regions()
    p.apply(view("eu", "us", eu=100.0))
    now = 0.0
    for _ in range(200):  # 100 requests a second; eu refuses
        found = p.pick(now)
        found.take(now)
        fail(found, 1, now) if found.region == "eu" else found.observe(AttemptOutcome.SUCCESS, 0.01, now)
        found.give_back(now)
        now += 0.01
    assert {p.pick(now).region for _ in range(10)} == {"us"}
    assert p.region_health(now)["eu"].available == 0


# -- slow start, drain, membership -------------------------------------------------------------------------------------


def test_slow_start_grows_from_a_tenth_to_the_whole():
    p = pool(backend("a"), backend("b"), how=BalanceSettings(slow_start_s=10.0))
    a = p.get("a")
    a.set_health(DOWN, 0.0)
    p.pick(0.0)
    a.set_health(UP, 100.0)
    shares = []
    for second in range(12):
        counts = Counter(p.pick(100.0 + second).id for _ in range(220))
        shares.append(counts["a"] / 220)
    assert shares[0] == pytest.approx(1 / 11)
    assert shares == sorted(shares)
    assert shares[10] == shares[11] == 0.5


def test_draining_gets_nothing_new_and_keeps_what_runs():
    p = pool(backend("a"), backend("b"))
    a = p.get("a")
    a.take(0.0)
    a.set_admin(Admin.DRAINING, 0.0)
    assert {p.pick(0.0).id for _ in range(6)} == {"b"}
    assert a.in_flight == 1
    a.give_back(0.0)
    assert p.region_health(0.0)["eu"].fraction == 0.5


def test_add_and_remove_at_run_time():
    p = pool(backend("a"))
    p.pick(0.0)
    p.add(backend("b"), 0.0)
    assert {p.pick(0.0).id for _ in range(30)} == {"a", "b"}
    held = p.get("a")
    held.take(0.0)
    assert p.remove("a") is held
    assert p.remove("a") is None
    assert {p.pick(0.0).id for _ in range(6)} == {"b"}
    held.give_back(0.0)
    p.remove("b")
    assert p.pick(0.0) is None


def test_a_reload_carries_live_state_over_by_identity_and_address():
    p = pool(backend("a"), backend("b"), backend("gone"))
    joined, gone = backend("joined"), p.get("gone")
    p.add(joined)
    a, b = p.get("a"), p.get("b")
    a.take(0.0)
    fail(b, 5, 0.0)
    moved = Backend(BackendSpec("b", "p", "http", "10.9.9.9", 80, b"x", "eu"))
    p.renew(pool(backend("a", weight=3), moved, backend("c")), ["joined"])
    assert p.get("a") is a
    assert (a.in_flight, a.weight) == (1, 3)
    assert p.get("b") is moved  # another address: another backend
    assert [x.id for x in p.backends] == ["a", "b", "c", "joined"]
    assert p.get("joined") is joined
    p.remove("joined")
    assert Counter(p.pick(0.0).id for _ in range(5)) == {"a": 3, "b": 1, "c": 1}
    a.give_back(0.0)
    for dead in (a, gone):  # who left ejects nobody here
        fail(dead, 5, 0.0)
    assert [(event.kind, event.subject) for event in p.take_events()] == [("ejected", "b"), ("ejected", "a")]


def test_the_table_has_a_row_for_each():
    rows = pool(backend("a"), backend("b", "us")).table(0.0)
    assert [(row["id"], row["region"], row["available"]) for row in rows] == [("a", "eu", True), ("b", "us", True)]


class Requests(RuleBasedStateMachine):
    """Any mix of picks, ends, outcomes, health, drains, reloads: every take is given back, limits and fences hold."""

    policies = st.sampled_from(["round-robin", "least-connections", "latency", "hash", "random"])

    def __init__(self) -> None:
        super().__init__()
        self.pool = self.make("least-connections")
        self.held: list[Backend] = []
        self.now = 0.0

    def make(self, policy: str) -> Pool:
        names = [("e1", "eu", 2), ("e2", "eu", None), ("u1", "us", 3), ("u2", "us", 1), ("x1", "off", None)]
        p = pool(*(backend(n, r, limit=x) for n, r, x in names), policy=policy, how=BalanceSettings())
        p.apply(RoutingView({"eu": 60.0, "us": 40.0}, ("eu", "us"), frozenset({"eu", "us"})))
        return p

    @rule(hint=st.integers(0, 99), fence=st.sampled_from([None, frozenset({"us"}), frozenset({"off"})]))
    def pick(self, hint: int, fence: frozenset[str] | None) -> None:
        found = self.pool.pick(self.now, hint, (), None, fence)
        if found is None:
            full = self.pool.is_full(self.now, fence)
            assert (self.pool.verdict is PickResult.FULL) is full
            return
        assert found.region in ("eu", "us")
        assert fence is None or found.region in fence
        assert found.in_flight < found.own_limit
        assert found.admin is Admin.ACTIVE
        assert found.health is not DOWN
        found.take(self.now)
        self.held.append(found)

    @precondition(lambda self: self.held)
    @rule(index=st.integers(0, 99), outcome=st.sampled_from(AttemptOutcome))
    def end(self, index: int, outcome: AttemptOutcome) -> None:
        ended = self.held.pop(index % len(self.held))
        ended.observe(outcome, 0.01, self.now)
        ended.give_back(self.now)

    @precondition(lambda self: self.held)
    @rule()
    def retry(self) -> None:
        again = self.pool.pick(self.now, 0, self.held[-2:])
        assert again is None or again not in self.held[-2:]

    @rule(index=st.integers(0, 4), health=st.sampled_from([UP, DOWN]))
    def probe(self, index: int, health: Health) -> None:
        self.pool.backends[index].set_health(health, self.now)

    @rule(index=st.integers(0, 4), admin=st.sampled_from(Admin))
    def operate(self, index: int, admin: Admin) -> None:
        self.pool.backends[index].set_admin(admin, self.now)

    @rule(seconds=st.sampled_from([0.1, 1.0, 6.0, 40.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(policy=policies)
    def reload(self, policy: str) -> None:
        self.pool.renew(self.make(policy))

    @invariant()
    def in_flight_is_what_is_held(self) -> None:
        assert Counter(b.id for b in self.held) == {b.id: b.in_flight for b in self.pool.backends if b.in_flight}

    def teardown(self) -> None:
        for b in self.held:
            b.give_back(self.now)
        assert all(b.in_flight == 0 for b in self.pool.backends)


TestRequests = Requests.TestCase
TestRequests.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
