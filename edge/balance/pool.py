"""A pool: picks a backend for a request, in the region that the view says, within the fence.

One rule: the fence and the view's regions hold on every rung of the ladder, fail-open included. Who is a candidate
changes seldom, so it is worked out when something changed (`changed`) or when time makes a difference (`_next_at`: an
ejection ends, a slow start goes on), never per request. A pick is then: region by share, policy over its candidates.

    region by share (or the caller's order) ─► next regions in order ─► last resorts ─► FULL? None, wait
      ─► fallback pool ─► fail-open (health ignored) ─► None

Panic (health ignored in a tier that is short) is part of the candidates; with nothing available at all the
ladder applies instead, so that a fallback pool is reached and a dead fence answers 503.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from edge.balance.backend import Backend
from edge.balance.groups import FOREVER, Ask, Group, rows, share_out
from edge.balance.health import Admin, EjectionSettings, Event, Health, Randbelow
from edge.balance.policies import POLICIES, spread
from edge.balance.regions import RegionHealth, RoutingView

# The region of each request without a hint: steps through all of SPAN, each value once, evenly (SPAN and STEP have no
# common divisor; STEP / SPAN is near the golden ratio). So shares are kept closely over any run, without chance.
SPAN = 10000
STEP = 6181
_REGION_SALT = 0x5DEECE66D  # so that a key's region and its place on the ring have nothing in common


class PickResult(Enum):
    """The result of the last pick that left the fast way."""

    PICKED = "picked"
    FULL = "full"  # somebody is available, but at the limit: wait
    NONE = "none"


@dataclass(frozen=True, slots=True)
class BalanceSettings:
    """How a pool treats its backends; durations in seconds."""

    ejection: EjectionSettings | None = field(default_factory=EjectionSettings)
    slow_start_s: float = 10.0
    fail_open: bool = False  # with everything down, try anyway rather than answer 503


class Pool:
    """The backends of one pool in one process, and the policy that chooses among them."""

    def __init__(
        self, name: str, backends: Iterable[Backend], policy: str, settings: BalanceSettings, randbelow: Randbelow
    ) -> None:
        self.name = name
        self.policy = policy
        self.settings = settings
        self.fallback: Pool | None = None  # another pool; the backends that it gives have its name in `pool`
        self.verdict = PickResult.NONE
        self.view: RoutingView | None = None  # None: all regions of the pool, by weight of their backends
        self._randbelow = randbelow
        self._backends: dict[str, Backend] = {}
        self._groups: dict[str, Group] = {}
        self._events: deque[Event] = deque(maxlen=256)
        self._spin = randbelow(SPAN)  # workers begin at different places
        self._dirty = True
        self._next_at = FOREVER
        self._drawn: list[Group] = []  # groups with a share and a candidate
        self._bounds: list[float] = []  # where each one's part of SPAN ends
        self._only: Group | None = None  # that one, when it is one
        self._well: dict[str, Group] = {}  # groups with a candidate in regions that are well
        self._current = RoutingView()
        for backend in backends:
            self._join(backend)
        self._regroup()

    # -- picking ---------------------------------------------------------------------------------------------------

    def pick(
        self,
        now: float,
        hint: int = 0,
        tried: Sequence[Backend] = (),
        regions: Sequence[str] | None = None,
        fence: frozenset[str] | None = None,
    ) -> Backend | None:
        """Choose a backend for one more request, none of `tried`. None when there is none; `verdict` says why.

        `regions` is an order to use instead of the shares (geo). Nothing outside `fence` is ever returned.
        """
        if self._dirty or now >= self._next_at:
            self._refresh(now)
        if not tried and regions is None and fence is None and self._drawn:
            group = self._only or self._draw(hint)
            backend = group.policy.pick(group.candidates, hint, now)
            if backend.in_flight < backend.limit:
                return backend
        elif regions is not None and not tried:
            for name in regions:
                if name in self._well and (fence is None or name in fence):
                    group = self._well[name]
                    backend = group.policy.pick(group.candidates, hint, now)
                    if backend.in_flight < backend.limit:
                        return backend
                    break
        return self._pick_slowly(now, Ask(hint, tried, regions, fence))

    def _draw(self, hint: int) -> Group:
        """A region by share; with consistent hashing a key stays in its region."""
        if self.policy == "hash":
            at = spread(hint ^ _REGION_SALT) % SPAN
        else:
            at = self._spin = (self._spin + STEP) % SPAN
        return self._drawn[min(bisect_right(self._bounds, at), len(self._drawn) - 1)]

    def _draw_inside(self, ask: Ask) -> list[str]:
        """The region of `_draw`, drawn among those inside the fence; an empty list where there is none."""
        if not self._drawn:
            return []
        if ask.fence is None:
            return [self._draw(ask.hint).region]
        for _ in range(16):  # by rejection: shares inside the fence keep their proportions
            group = self._draw(ask.hint)
            if group.region in ask.fence:
                return [group.region]
            if self.policy == "hash":
                break
        return [group.region for group in self._drawn if group.region in ask.fence][:1]

    def _walk(self, ask: Ask) -> Iterator[Group]:
        """Groups in the order this request may use them: where it failed once, the order, last resorts."""
        view = self._current
        last: list[str]
        if ask.regions is not None:
            order = sorted(ask.regions, key=lambda name: name not in view.healthy)
            last = [name for name in ask.regions if name in view.last_resort]
        else:
            order = [*(() if ask.tried else self._draw_inside(ask)), *view.order]
            last = list(view.last_resort)
        if ask.tried:
            # Another backend first, then the next region: a region that failed this request twice comes last, so that
            # three attempts are enough to leave a region that died.
            failed = Counter(backend.region for backend in ask.tried)
            order.sort(key=lambda name: 2 * (failed[name] > 1) + (name != ask.tried[-1].region))
        allowed = frozenset(view.order)
        for name in dict.fromkeys([name for name in order if name in allowed] + last):
            if name in self._groups and (ask.fence is None or name in ask.fence):
                yield self._groups[name]

    def _pick_slowly(self, now: float, ask: Ask) -> Backend | None:
        full = anybody = False
        for group in self._walk(ask):
            free = group.free(ask)
            if free:
                self.verdict = PickResult.PICKED
                return group.policy.pick(free, ask.hint, now)
            full = full or group.has_full()
            anybody = anybody or bool(group.candidates)
        # Somebody is in, but full or tried already: to wait, or to give up, is right. The rest is for all being down.
        found = None if anybody else self._all_down(now, ask)
        self.verdict = PickResult.PICKED if found is not None else PickResult.FULL if full else PickResult.NONE
        return found

    def _all_down(self, now: float, ask: Ask) -> Backend | None:
        """The last rungs, with the same fence; the caller has served stale already if it could."""
        if self.fallback is not None:
            found = self.fallback.pick(now, *ask)
            if found is not None:
                return found
        if self.settings.fail_open:
            for group in self._walk(ask):
                if members := group.whoever(ask):
                    return group.policy.pick(members, ask.hint, now)
        return None

    def is_full(self, now: float, fence: frozenset[str] | None = None, regions: Sequence[str] | None = None) -> bool:
        """Whether some backend that may serve is kept from it only by its limit, so that waiting makes sense."""
        if self._dirty or now >= self._next_at:
            self._refresh(now)
        anybody = False
        for group in self._walk(Ask(0, (), regions, fence)):
            if group.has_full():
                return True
            anybody = anybody or bool(group.candidates)
        return not anybody and self.fallback is not None and self.fallback.is_full(now, fence, regions)

    # -- what changes ----------------------------------------------------------------------------------------------

    def changed(self) -> None:
        """The set of candidates may have changed (`backend.Owner`)."""
        self._dirty = True

    def suspect(self, backend: Backend, evidence: str, now: float) -> None:
        """Eject an outlier, unless too many are out already or nothing else is in (`backend.Owner`)."""
        settings = self.settings.ejection
        if settings is None:
            return
        if self._dirty:  # whom the view lets serve counts below
            self._refresh(now)
        members = [other for other in self._backends.values() if other.admin is Admin.ACTIVE]
        ejected = sum(1 for other in members if now < other.ejected_until)
        serving = self._current.order
        others_in = any(other is not backend and other.region in serving and other.is_in(now) for other in members)
        if not others_in or ejected + 1 > int(len(members) * settings.max_ejected):
            backend.spare()
            self._events.append(Event("ejection-refused", backend.id, f"{evidence}; too few would be left", now))
            return
        until = backend.eject(now)
        self._events.append(Event("ejected", backend.id, f"{evidence}; for {until - now:g} s", now))

    def readmitted(self, backend: Backend, evidence: str, now: float) -> None:
        """An ejection is over (`backend.Owner`)."""
        self._events.append(Event("readmitted", backend.id, evidence, now))
        self._dirty = True

    def apply(self, view: RoutingView | None) -> None:
        """Use a view from the next pick on. Running requests stay where they are."""
        if view != self.view:
            self.view = view
            self._dirty = True

    def apply_health(self, healths: Mapping[str, Health], now: float) -> None:
        """Take the prober's results by backend id. Unknown ids are ignored."""
        for backend_id, health in healths.items():
            if backend_id in self._backends:
                self._backends[backend_id].set_health(health, now)

    def add(self, backend: Backend, now: float | None = None) -> None:
        """Add a backend at run time; with `now` it starts slowly."""
        if now is not None:
            backend.slow_from = now
        self._join(backend)
        self._regroup()

    def remove(self, backend_id: str) -> Backend | None:
        """Remove a backend: it gets no new requests. Requests that use it still give it back."""
        backend = self._backends.pop(backend_id, None)
        if backend is not None:
            backend.belong(None, self.settings.ejection)
            self._regroup()
        return backend

    def renew(self, fresh: Pool, kept: Iterable[str] = ()) -> None:
        """Take over the values of `fresh` at a reload. Backends with the same id and address keep their live state.

        `kept` are members beside those of the file. `fresh` must not be used any more.
        """
        before, self._backends = self._backends, {}
        self.policy, self.settings = fresh.policy, fresh.settings
        for made in fresh.backends:
            lived = before.get(made.id)
            if lived is None or not lived.spec.same_address(made.spec):
                self._join(made)
                continue
            lived.respec(made.spec)
            if made.health is Health.HEALTHY:  # the new configuration has no probes
                lived.health = Health.HEALTHY
            self._join(lived)
        for backend_id in kept:
            if backend_id in before and backend_id not in self._backends:
                self._join(before[backend_id])
        for backend in before.values():
            if self._backends.get(backend.id) is not backend:
                backend.belong(None, self.settings.ejection)
        self._regroup()
        for made in fresh.backends:
            if self._backends.get(made.id) is not made:
                made.belong(None, self.settings.ejection)  # it refers to nobody, so that it is freed at once

    def take_events(self) -> list[Event]:
        """The events since the last call."""
        events = list(self._events)
        self._events.clear()
        return events

    # -- for others ------------------------------------------------------------------------------------------------

    @property
    def backends(self) -> list[Backend]:
        """All members, in configured order."""
        return list(self._backends.values())

    def get(self, backend_id: str) -> Backend | None:
        """The member with this id, or None."""
        return self._backends.get(backend_id)

    def region_health(self, now: float) -> dict[str, RegionHealth]:
        """The health of each region of the pool, for `failover.decide`."""
        return {group.region: group.region_health(now) for group in self._groups.values()}

    def table(self, now: float) -> list[dict[str, Any]]:
        """One row for each backend, for status."""
        return rows(self._backends.values(), now)

    # -- inside ----------------------------------------------------------------------------------------------------

    def _join(self, backend: Backend) -> None:
        backend.belong(self, self.settings.ejection)
        self._backends[backend.id] = backend

    def _regroup(self) -> None:
        """Membership changed: groups and policies anew (the hash ring is built from members, not from who is in)."""
        members: dict[str, list[Backend]] = {}
        for backend in self._backends.values():
            members.setdefault(backend.region, []).append(backend)
        make = POLICIES[self.policy]
        self._groups = {region: Group(region, found, make(found, self._randbelow)) for region, found in members.items()}
        self._dirty = True

    def _refresh(self, now: float) -> None:
        """Work out the candidates of each region, and the shares of the regions that have any."""
        view = self._current = self.view if self.view is not None else self._whole_view()
        groups = list(self._groups.values())
        next_at = min((group.refresh(now, group.region in view.panic) for group in groups), default=FOREVER)
        usable = [group for group in groups if group.region in view.order]
        if not any(group.candidates for group in usable):
            for group in usable:
                group.forgive()
        everyone = [backend for group in groups for backend in group.candidates]
        self._next_at = min(next_at, share_out(everyone, now, self.settings.slow_start_s))
        for group in groups:
            group.policy.settle(group.candidates)
        self._drawn = [group for group in usable if group.candidates and view.shares.get(group.region, 0.0) > 0]
        total = sum(view.shares[group.region] for group in self._drawn)
        self._bounds, at = [], 0.0
        for group in self._drawn:
            at += view.shares[group.region] * SPAN / total
            self._bounds.append(at)
        self._only = self._drawn[0] if len(self._drawn) == 1 else None
        self._well = {group.region: group for group in usable if group.candidates and group.region in view.healthy}
        self._dirty = False

    def _whole_view(self) -> RoutingView:
        """Without anyone who decides: all regions of the pool, by the weight of their backends."""
        total = sum(group.weight for group in self._groups.values())
        shares = {group.region: 100.0 * group.weight / total for group in self._groups.values()}
        return RoutingView(shares, tuple(shares), frozenset(shares))
