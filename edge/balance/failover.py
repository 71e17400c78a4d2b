"""Which region serves, as a pure function of (configuration, admin, health, state, now).

    switch:  OK ─bad for down_after─► FAILED_OVER ─home good─► RECOVERING ─good for up_after─► RAMP ─100 %─► OK
              └─ SUSPECT while bad ─┘      ▲                        └──── home bad ────┘  home bad ┘

One rule: a region that is not active gets nothing, and health moves the serving region at most once in `min_dwell`.
The hold-down runs from a region's recovery, not from the switch. An operator's change acts at once and is not held back
by the dwell, but starts it anew; a region that was drained by hand and was well all the while has its traffic back at
once, for a ramp is for what was ill. Single requests fail over by the view's `order`, before anything happens here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from edge.balance.health import NEVER, Admin, Event, Health
from edge.balance.latency import Preference, prefer
from edge.balance.regions import (
    Failback,
    FailoverSettings,
    Mode,
    RegionHealth,
    RegionSpec,
    RoutingView,
    Standing,
    spill,
)


class Phase(Enum):
    """The state of a pool with `failover = "switch"`."""

    OK = "ok"
    SUSPECT = "suspect"
    FAILED_OVER = "failed-over"
    RECOVERING = "recovering"
    RAMP = "ramp"


@dataclass(frozen=True, slots=True)
class PoolRegions:
    """The regions of one pool, in configured order, and how it fails over."""

    regions: tuple[RegionSpec, ...]
    settings: FailoverSettings = field(default_factory=FailoverSettings)


@dataclass(frozen=True, slots=True)
class RegionMemory:
    """What is remembered of one region between decisions."""

    good: bool
    since: float  # of `good`; minus infinity when it has been so from the start
    alive: bool  # something of it is available, whatever the operator wants of it
    returned_at: float = NEVER  # when it came back from having nothing, for the slow start of spill


@dataclass(frozen=True, slots=True)
class FailoverState:
    """What is remembered of one pool between decisions."""

    phase: Phase = Phase.OK
    serving: str | None = None
    moved_at: float = NEVER  # the serving region changed, for whatever reason
    ramp_from: float = NEVER
    ramp_to: str | None = None  # the region that takes over, in phase RAMP
    switches: tuple[float, ...] = ()  # by health, within the freeze window
    frozen: bool = False
    failback_asked: bool = False  # the operator's word, for failback = "manual"
    memories: Mapping[str, RegionMemory] = field(default_factory=dict)
    preferences: Mapping[int, Preference] = field(default_factory=dict)  # by tier
    panic: frozenset[str] = frozenset()
    left: str | None = None  # the region that served until an operator took it out, for its return
    ramping: frozenset[str] = frozenset()  # regions that spill lets come back slowly


Decision = tuple[RoutingView, FailoverState, tuple[Event, ...]]


def decide(
    spec: PoolRegions,
    admin: Mapping[str, Admin],
    health: Mapping[str, RegionHealth],
    state: FailoverState,
    now: float,
) -> Decision:
    """Decide which regions serve. Returns the view for now, the state for the next decision, and events.

    Regions without health are left out.
    """
    events: list[Event] = []
    settings = spec.settings
    present = [region for region in spec.regions if region.name in health]
    active = [region for region in present if admin.get(region.name, Admin.ACTIVE) is Admin.ACTIVE]
    resort = [region for region in present if region.last_resort and region not in active]
    state = _remember(present, health, state, settings, now)
    state = _prefer(active, health, state, settings, now, events)
    # With nothing left among the active ones, the last resorts take part. A switched pool has no share for them: they
    # serve by `last_resort`, request by request, so that health alone never moves the serving region past the dwell.
    used = active
    spills = settings.mode is Mode.SPILL and not any(health[region.name].available for region in active)
    if spills or not active:
        used = active + [region for region in resort if health[region.name].available or not active]
    levels = _levels(used, resort, health, state, settings, now)
    if settings.mode is Mode.SWITCH:
        shares, panic, state = _switch(levels, state, settings, now, events)
    else:
        shares, panic = spill(levels, settings)
        state = _ramps(used, state, settings, now, events)
    for name in sorted(panic - state.panic):
        events.append(Event("panic", name, "too little is available and no lower tier can take it", now))
    for name in sorted(state.panic - panic):
        events.append(Event("panic-over", name, "enough is available again", now))
    state = replace(state, panic=panic)
    ranked = [standing.spec.name for level in levels for standing in level]
    healthy = frozenset(name for name in ranked if health[name].verdict(settings.healthy_min) is not Health.UNHEALTHY)
    order = tuple(sorted(ranked, key=lambda name: (name not in healthy, -shares.get(name, 0.0), ranked.index(name))))
    view = RoutingView(
        {name: share for name, share in shares.items() if share > 0},
        order,
        healthy,
        panic,
        tuple(region.name for region in resort if region not in used),
    )
    return view, state, tuple(events)


def ask_failback(state: FailoverState) -> FailoverState:
    """The operator asks for the better region: ends a freeze, and what `failback = "manual"` waits for."""
    return replace(state, failback_asked=True, frozen=False, switches=())


def _remember(
    present: Sequence[RegionSpec],
    health: Mapping[str, RegionHealth],
    state: FailoverState,
    settings: FailoverSettings,
    now: float,
) -> FailoverState:
    memories: dict[str, RegionMemory] = {}
    for region in present:
        seen = health[region.name]
        good = seen.verdict(settings.healthy_min) is not Health.UNHEALTHY
        alive = seen.available > 0
        old = state.memories.get(region.name)
        if old is None:
            memories[region.name] = RegionMemory(good, NEVER if good else now, alive)
            continue
        memories[region.name] = RegionMemory(
            good,
            old.since if good is old.good else now,
            alive,
            now if alive and not old.alive else old.returned_at,
        )
    return replace(state, memories=memories)


def _prefer(
    active: Sequence[RegionSpec],
    health: Mapping[str, RegionHealth],
    state: FailoverState,
    settings: FailoverSettings,
    now: float,
    events: list[Event],
) -> FailoverState:
    if not settings.by_latency:
        return state
    preferences: dict[int, Preference] = {}
    for tier in sorted({region.tier for region in active}):
        names = [region.name for region in active if region.tier == tier and health[region.name].available]
        known = {name: latency for name in names if (latency := health[name].latency_s) is not None}
        old = state.preferences.get(tier, Preference())
        new = preferences[tier] = prefer(names, known, old, now, settings.preference)
        if new.region != old.region and old.region is not None and new.region is not None:
            events.append(Event("region-preferred", new.region, f"faster than {old.region}", now))
    return replace(state, preferences=preferences)


def _levels(
    used: Sequence[RegionSpec],
    resort: Sequence[RegionSpec],
    health: Mapping[str, RegionHealth],
    state: FailoverState,
    settings: FailoverSettings,
    now: float,
) -> list[list[Standing]]:
    """By tier; the preferred region of a tier before the rest of it; last resorts after everything."""
    levels: dict[tuple[bool, int, bool], list[Standing]] = {}
    for region in used:
        preference = state.preferences.get(region.tier)
        behind = preference is not None and preference.region not in (None, region.name)
        ramp = _ramp(state.memories[region.name].returned_at, settings, now)
        levels.setdefault((region in resort, region.tier, behind), []).append(
            Standing(region, health[region.name], ramp)
        )
    return [
        sorted(levels[key], key=lambda standing: (-standing.spec.weight, standing.spec.name)) for key in sorted(levels)
    ]


def ramping(name: str, state: FailoverState, settings: FailoverSettings, now: float) -> float | None:
    """How far a region has returned, 0 to 1; None when it is not returning."""
    if settings.mode is Mode.SWITCH:
        returns = state.phase is Phase.RAMP and state.ramp_to == name
        return _ramp(state.ramp_from, settings, now) if returns else None
    return _ramp(state.memories[name].returned_at, settings, now) if name in state.ramping else None


def _ramps(
    used: Sequence[RegionSpec], state: FailoverState, settings: FailoverSettings, now: float, events: list[Event]
) -> FailoverState:
    """Who comes back slowly under spill, and what is worth telling of it."""
    memories = state.memories
    on_way = [
        region.name
        for region in used
        if memories[region.name].alive and _ramp(memories[region.name].returned_at, settings, now) < 1.0
    ]
    for name in on_way:
        if name not in state.ramping:
            span = f"from {settings.ramp_start:.0%} over {settings.ramp_s:g} s"
            events.append(Event("region-ramp", name, f"it is back: {span}", now))
    for region in used:
        if region.name in state.ramping and region.name not in on_way and memories[region.name].alive:
            events.append(Event("region-ok", region.name, "the ramp is over", now))
    return replace(state, ramping=frozenset(on_way))


def _ramp(began: float, settings: FailoverSettings, now: float) -> float:
    if settings.ramp_s <= 0 or now >= began + settings.ramp_s:
        return 1.0
    return settings.ramp_start + (1.0 - settings.ramp_start) * max(0.0, now - began) / settings.ramp_s


def _switch(
    levels: Sequence[Sequence[Standing]],
    state: FailoverState,
    settings: FailoverSettings,
    now: float,
    events: list[Event],
) -> tuple[dict[str, float], frozenset[str], FailoverState]:
    standings = [standing for level in levels for standing in level]
    ranked = [standing.spec.name for standing in standings]
    if not ranked:
        return {}, frozenset(), replace(state, serving=None, phase=Phase.OK)
    state = _step(ranked, state, settings, now, events)
    serving = state.serving
    assert serving is not None
    shares = {serving: 100.0}
    if state.phase is Phase.RAMP and state.ramp_to is not None:
        back = _ramp(state.ramp_from, settings, now) * 100.0
        shares = {state.ramp_to: back, serving: 100.0 - back}
    # Panic only when no other region could take over: the same question as spill's, over all of them.
    _, panic = spill([[standing] for standing in standings], settings)
    return shares, panic & {serving}, state


def _better(ranked: Sequence[str], state: FailoverState) -> str | None:
    """The best region before the serving one that is good now."""
    for name in ranked:
        if name == state.serving:
            return None
        if state.memories[name].good:
            return name
    return None


def _step(
    ranked: Sequence[str], state: FailoverState, settings: FailoverSettings, now: float, events: list[Event]
) -> FailoverState:
    """One step of the machine; at most one change of the serving region."""
    memories = state.memories
    target = next((name for name in ranked if memories[name].good), ranked[0])
    serving_name = state.serving
    if serving_name is None or serving_name not in ranked:  # the first decision, or an operator's change: at once
        return replace(_move(target, ranked, state, now, events, by_health=False), left=serving_name)
    left = state.left
    if left is not None and left in ranked:  # the operator lets it serve again
        state = replace(state, left=None)
        if memories[left].good and memories[left].since <= state.moved_at and ranked.index(left) == 0:
            return _move(left, ranked, state, now, events, by_health=False)
    state = _thaw(ranked, state, settings, now, events)
    may_move = not state.frozen and now - state.moved_at >= settings.min_dwell_s
    serving = memories[serving_name]
    coming = state.ramp_to if state.phase is Phase.RAMP else None
    if coming is not None and coming in ranked and memories[coming].good:
        if serving.good and now < state.ramp_from + settings.ramp_s:
            return state
        return _move(coming, ranked, state, now, events, by_health=True, settings=settings)
    if not serving.good:
        late = now - serving.since >= settings.down_after_s
        if late and may_move and memories[target].good:
            return _move(target, ranked, state, now, events, by_health=True, settings=settings)
        return _enter(Phase.SUSPECT, state, now, events)
    better = _better(ranked, state)
    if better is None:
        return _enter(Phase.OK if state.serving == ranked[0] else Phase.FAILED_OVER, state, now, events)
    allowed = settings.failback is Failback.AUTO or state.failback_asked
    if settings.failback is Failback.NEVER or not allowed or state.frozen:
        return _enter(Phase.FAILED_OVER, state, now, events)
    if may_move and now - memories[better].since >= settings.up_after_s:
        return replace(_enter(Phase.RAMP, state, now, events), ramp_from=now, ramp_to=better)
    return _enter(Phase.RECOVERING, state, now, events)


def _enter(phase: Phase, state: FailoverState, now: float, events: list[Event]) -> FailoverState:
    if phase is state.phase:
        return state
    events.append(Event(f"region-{phase.value}", state.serving or "", f"was {state.phase.value}", now))
    return replace(state, phase=phase)


def _move(
    target: str,
    ranked: Sequence[str],
    state: FailoverState,
    now: float,
    events: list[Event],
    by_health: bool,
    settings: FailoverSettings | None = None,
) -> FailoverState:
    phase = Phase.OK if target == ranked[0] else Phase.FAILED_OVER
    old = state.serving
    state = replace(state, serving=target, phase=phase, ramp_from=NEVER, ramp_to=None, failback_asked=False)
    if old is None:
        return state
    state = replace(state, moved_at=now, left=None)
    events.append(Event("region-switch", target, f"from {old}, by {'health' if by_health else 'operator'}", now))
    if not by_health or settings is None:
        return replace(state, frozen=False, switches=())
    switches = (*(at for at in state.switches if now - at < settings.freeze_window_s), now)
    frozen = len(switches) >= settings.freeze_after and phase is not Phase.OK
    if frozen:
        span = f"{len(switches)} switches in {settings.freeze_window_s:g} s"
        events.append(Event("region-frozen", target, span, now))
    return replace(state, switches=switches, frozen=frozen)


def _thaw(
    ranked: Sequence[str], state: FailoverState, settings: FailoverSettings, now: float, events: list[Event]
) -> FailoverState:
    """A freeze ends by the operator, or when the better region was good for a whole freeze window without a break."""
    if not state.frozen:
        return state
    if state.serving == ranked[0]:  # what it was frozen away from is gone
        return replace(state, frozen=False)
    better = _better(ranked, state)
    calm_since = max(state.moved_at, state.memories[better].since) if better else now
    if now - calm_since < settings.freeze_window_s:
        return state
    events.append(Event("region-thawed", state.serving or "", f"{better} was good all the while", now))
    return replace(state, frozen=False, switches=())
