"""`edge explain`: how a request would be decided, stage by stage, without sending it.

One rule: it asks the very functions that the request path asks (router, key, store, pool), and changes nothing: no pick
is counted, no flight begun, no use of a stored response noted.
"""

from __future__ import annotations

from time import monotonic, time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from edge.balance.geo import ClientPlace
from edge.balance.policies import latency_score
from edge.balance.regions import RoutingView
from edge.cache.key import key_of
from edge.cache.policy import evaluate
from edge.cache.stored import Stored
from edge.cache.verdict import Action, Reason, Verdict, word
from edge.dataplane.rules.answers import https_location
from edge.dataplane.rules.asked import Imagined
from edge.dataplane.rules.shares import Split
from edge.errors import BadRequest, ClientError
from edge.http.asking import asking
from edge.http.message import RequestHead

if TYPE_CHECKING:
    from edge.dataplane.core.route import Route, RunningPool
    from edge.dataplane.worker.worker import Worker


OUT_OF_SERVICE = "drained or deactivated: no requests"
OUTSIDE_FENCE = "outside the route's fence: never"


def explain(worker: Worker, body: dict[str, Any]) -> dict[str, Any]:
    """How a request would be decided, as plain values for the admin API.

    `body`: url, and optionally client, method, headers (list of [name, value]). Raises BadRequest.
    """
    asked = _asked(worker, body)
    client = body.get("client")
    told: dict[str, Any] = {"url": body["url"], "method": asked.method.decode(), "client": client}
    try:
        route = _route_of(worker, asked)
    except ClientError as error:
        return {**told, "route": None, "verdict": "error", "status": error.status, "reason": error.detail}
    told["route"] = _route(route)
    rules = _rules(worker, route, asked)
    if rules:
        told["rules"] = rules
    apart = route.apart
    for step in route.steps:
        if isinstance(step, Split) and (home := step.home(asked)) is not None:
            route, apart = home[0], apart + home[1]
            told["route"]["pool"] = route.pool.name
    fields = asked.block.fields
    request = RequestHead(asked.method, asked.scheme, asked.authority, asked.target, fields, apart=apart)
    told["cache"] = _cache(worker, route, request, time())
    order: tuple[str, ...] | None = None
    if client is not None and worker.geography is not None:
        place = worker.geography.places.place(client)
        decision = worker.geography.decide_for(client, place, route.wish)
        told["place"] = {**_place(place), "found_by": decision.level.value, "order": list(decision.order)}
        order = decision.order if route.by_place else None
    told["regions"] = _regions(route, order)
    told["backends"] = _backends(route.pool)
    hash_on = route.pool.hash_on
    if hash_on is not None:
        has_value = hash_on.value(asked.target, str(client or ""), fields)
        told["hash"] = {"on": hash_on.on, "home": "by its value" if has_value else "none: any backend, by chance"}
    return told


def _asked(worker: Worker, body: dict[str, Any]) -> Imagined:
    """The request that is asked about. Raises BadRequest."""
    url = body["url"]
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise BadRequest(f"{url[:100]!r}: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.netloc or not url.isascii():
        raise BadRequest(f"{url[:100]!r}: expected http(s)://host/path in ASCII")
    method, host = str(body.get("method", "GET")).encode(), parts.netloc.lower().encode()
    target = ((parts.path or "/") + (f"?{parts.query}" if parts.query else "")).encode()
    lines = [(name.encode(), value.encode()) for name, value in body.get("headers", [])]
    asked = Imagined(method, parts.scheme.encode(), host, target, asking(method, host, target, lines, worker.head))
    asked.client = str(body.get("client") or "")
    if asked.client and worker.geography is not None:
        asked.place = worker.geography.places.place(asked.client).country or ""
    return asked


def _route_of(worker: Worker, asked: Imagined) -> Route:
    """The route that would serve the request. Raises ClientError."""
    route = worker.router.find(asked.host, asked.target)
    if route.match is not None:
        route = worker.router.choose(asked)
    route.check_path(asked.target)
    route.check_method(asked.method, asked.client)
    return route


def _rules(worker: Worker, route: Route, asked: Imagined) -> list[dict[str, Any]]:
    """What each rule would do with the request, in their order."""
    rules = route.does.explain(asked)
    port = worker.limits.https_port
    if port is not None and (location := https_location(asked, port)) is not None:
        rules.insert(0, {"rule": "redirect_http", "does": f"308 to {location.decode('latin-1')}"})
    return rules


def _place(place: ClientPlace) -> dict[str, Any]:
    """What the database says of the client's address, or why it says nothing."""
    if place.unknown is not None:
        return {"unknown": place.unknown.value}
    return {
        "country": place.country,
        "subdivision": place.subdivision,
        "continent": place.continent,
        "location": None if place.lat is None else [place.lat, place.lon],
    }


def _route(route: Route) -> dict[str, Any]:
    rules = route.rules
    return {
        "name": route.name,
        "host": route.host.decode(),
        "path": route.path.decode(),
        "pool": route.pool.name,
        "rule": None if rules is None else rules.name,
        "by_place": route.by_place,
        "prefer": list(route.prefer),
        "require": sorted(route.fence) if route.fence is not None else [],
    }


def _cache(worker: Worker, route: Route, request: RequestHead, now: float) -> dict[str, Any]:
    """Key, verdict, reason and what is stored, by `cache.policy.evaluate` as a request would have it."""
    store, rules = worker.store, route.rules
    if rules is None or store is None:
        return {"verdict": Verdict.BYPASS.value, "reason": "cache = false"}
    key = key_of(request, rules)
    variants = store.variants(key)
    if route.ranges is not None and not variants:
        request = route.ranges.first(request)
        key = key_of(request, rules)
        variants = store.variants(key)
    decision = evaluate(request, variants, rules, now)
    reason = word(decision.reason, rules.name)
    if decision.reason is Reason.COLD:
        reason = store.absence(key)
    return {
        "key": key.decode("latin-1"),
        "verdict": _VERDICTS[decision.act].value,
        "reason": reason,
        "rule": rules.name,
        "variants": len(variants),
        "stored": None if decision.stored is None else _stored(decision.stored, now),
    }


_VERDICTS = {
    Action.FRESH: Verdict.HIT,
    Action.STALE_OK: Verdict.STALE,
    Action.REVALIDATE: Verdict.REVALIDATED,
    Action.MISS: Verdict.MISS,
    Action.BYPASS: Verdict.BYPASS,
    Action.UNSATISFIABLE: Verdict.ERROR,
}


def _stored(stored: Stored, now: float) -> dict[str, Any]:
    """What is stored, and how long it lasts."""
    return {
        "status": stored.status,
        "bytes": stored.length,
        "age_s": stored.age(now),
        "ttl_s": round(stored.fresh_until - now, 1),
        "keep_s": round(stored.keep_until - now, 1),
        "vary": [name.decode("latin-1") for name, _ in stored.vary],
        "tags": sorted(tag.decode("latin-1") for tag in stored.tags),
    }


def _regions(route: Route, order: tuple[str, ...] | None) -> list[dict[str, Any]]:
    """The regions in the order in which this request would try them, each with the reason for its place. `order` is
    the one that suits the client's place; None: by the view's shares."""
    pool = route.pool.pool
    view = pool.view
    if view is None:
        return [{"region": name, "reason": "no view yet"} for name in sorted({b.region for b in pool.backends})]
    used = view.order
    if order is not None:
        used = tuple(sorted((name for name in order if name in view.order), key=lambda name: name not in view.healthy))
    rows = []
    for name in (*used, *(name for name in view.last_resort if name not in used)):
        fenced = route.fence is not None and name not in route.fence
        rows.append({"region": name, "share": view.shares.get(name, 0.0), "reason": _reason(view, name, fenced, order)})
    told = {row["region"] for row in rows}
    for name in sorted({backend.region for backend in pool.backends} - told):
        reason = OUT_OF_SERVICE if _is_out(view, name) else OUTSIDE_FENCE  # the client's order is within the fence
        rows.append({"region": name, "share": 0.0, "reason": reason})
    return rows


def _is_out(view: RoutingView, region: str) -> bool:
    """Whether an operator has taken the region out of service."""
    return region not in view.order and region not in view.last_resort


def _reason(view: RoutingView, name: str, fenced: bool, order: tuple[str, ...] | None) -> str:
    if fenced:
        return OUTSIDE_FENCE
    if name in view.panic:
        return "panic: health ignored"
    if name in view.last_resort:
        return "last resort"
    if name not in view.healthy:
        return "unhealthy: after the others" if view.healthy else "unhealthy, as all regions are"
    if order is not None:
        return "suits the client's place"
    return "serves its share" if name in view.shares else "spare"


def _backends(runtime: RunningPool) -> list[dict[str, Any]]:
    """Every backend with what its policy looks at."""
    now = monotonic()
    policy, view = runtime.pool.policy, runtime.pool.view
    rows = []
    for backend in runtime.pool.backends:
        score = None
        if policy in ("least-connections", "geo", "random"):
            score = (backend.in_flight + 1) / backend.share
        elif policy == "latency":
            score = latency_score(backend, now)
        out = view is not None and _is_out(view, backend.region)
        why = _why(backend.admin.value, backend.health.value, backend.ejected_until - now)
        rows.append(
            {
                "backend": backend.id,
                "region": backend.region,
                "available": backend.available(now) and not out,
                "why": "region out of service" if out else why,
                "in_flight": backend.in_flight,
                "weight": backend.weight,
                "policy": policy,
                "score": None if score is None else round(score, 4),
            }
        )
    return rows


def _why(admin: str, health: str, ejected_s: float) -> str:
    if admin != "active":
        return admin
    if ejected_s > 0:
        return f"ejected for {ejected_s:.1f} s more"
    return health
