"""What several tables of the file must agree on: names that exist, nothing given twice, no fence without a backend.

One rule: a check looks at the raw tables and takes nothing for granted, so that it finds its problems in a file that
also has others; what has the wrong shape is skipped here and reported by the schema.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from edge.config.positions import OTHER, Path, Problem, nearest
from edge.config.routing import DEFAULT_REGION, parse_route_host
from edge.config.types import parse_address, parse_backend_url, parse_listen_address, shown

Table = dict[str, Any]


def cross_problems(raw: Table) -> list[Problem]:
    """All disagreements between the tables of a parsed file."""
    return [problem for check in _CHECKS for problem in check(raw)]


def table(raw: Any, *names: str) -> Table:
    """A table inside tables; empty when it is not there or is no table."""
    for name in names:
        raw = raw.get(name) if isinstance(raw, dict) else None
    return raw if isinstance(raw, dict) else {}


def items(raw: Any) -> list[Any]:
    """A list; empty when it is none."""
    return raw if isinstance(raw, list) else []


def _tables(raw: Any) -> Iterator[tuple[int, Table]]:
    return ((at, item) for at, item in enumerate(items(raw)) if isinstance(item, dict))


def _backends(raw: Table) -> Iterator[tuple[Path, str, Table]]:
    """Path, pool name and table of each backend."""
    for pool, settings in table(raw, "pools").items():
        for at, backend in _tables(table(settings).get("backends")):
            yield ("pools", pool, "backends", at), pool, backend


def _regions(raw: Table) -> Iterable[str]:
    return table(raw, "regions") or (DEFAULT_REGION,)


def _unknown(kind: str, name: str, known: Iterable[str]) -> str:
    names = list(known)
    near = nearest(name, names)
    hint = f', did you mean "{near}"?' if near else f" (there {'are' if len(names) > 1 else 'is'}: {', '.join(names)})"
    return f"no {kind} named {shown(name)}{hint if names else ''}"


def _references(raw: Table) -> Iterator[Problem]:
    """A name of another table must be in it."""
    pools, regions = list(table(raw, "pools")), list(_regions(raw))
    for at, route in _tables(raw.get("routes")):
        pool = route.get("pool")
        if isinstance(pool, str) and pool not in pools:
            yield Problem(("routes", at, "pool"), _unknown("pool", pool, pools))
        for key, name in _other_pools(route):
            if name not in pools:
                yield Problem(("routes", at, *key), _unknown("pool", name, pools))
        if pool is None and not route.get("redirect") and not route.get("respond") and not route.get("split"):
            yield Problem(("routes", at), f"has no pool: name one of {', '.join(pools)}, or redirect or respond")
        for word in ("prefer", "require"):
            for index, name in enumerate(items(table(route, "geo").get(word))):
                if isinstance(name, str) and name not in regions:
                    yield Problem(("routes", at, "geo", word, index), _unknown("region", name, regions))
    for path, _, backend in _backends(raw):
        region = backend.get("region", DEFAULT_REGION)
        if "region" not in backend and region not in regions:
            yield Problem((*path, "region"), f"is missing: name one of {', '.join(regions)}")
        elif isinstance(region, str) and region not in regions:
            yield Problem((*path, "region"), _unknown("region", region, regions))


def _other_pools(route: Table) -> Iterator[tuple[Path, str]]:
    """The pools that `split` and `mirror` of a route name."""
    for number, share in _tables(route.get("split")):
        if isinstance(name := share.get("pool"), str):
            yield ("split", number, "pool"), name
    if isinstance(name := table(route, "mirror").get("pool"), str):
        yield ("mirror", "pool"), name


def _fallbacks(raw: Table) -> Iterator[Problem]:
    """A fallback pool exists, and the chain of fallbacks ends."""
    pools = table(raw, "pools")
    for name in pools:
        target = table(pools, name).get("fallback")
        if not isinstance(target, str):
            continue
        if target not in pools:
            yield Problem(("pools", name, "fallback"), _unknown("pool", target, pools))
            continue
        seen = [name]
        while isinstance(target, str) and target not in seen:
            seen.append(target)
            target = table(pools, target).get("fallback")
        if target == name:
            yield Problem(("pools", name, "fallback"), f"leads back to itself: {' → '.join([*seen, name])}")


def _fences(raw: Table) -> Iterator[Problem]:
    """A `require` set must hold a backend of the route's pool in a region that is not drained from the start."""
    regions = set(_regions(raw))
    active = {name for name in regions if table(raw, "regions", name).get("drained") is not True}
    for at, route in _tables(raw.get("routes")):
        pool, fence = route.get("pool"), items(table(route, "geo").get("require"))
        if not isinstance(pool, str) or pool not in table(raw, "pools") or not fence:
            continue
        if not all(isinstance(name, str) and name in regions for name in fence):
            continue  # the unknown name is reported; what it would have held is not known
        held = {backend.get("region", DEFAULT_REGION) for _, owner, backend in _backends(raw) if owner == pool}
        if not held & set(fence):
            yield Problem(("routes", at, "geo", "require"), f'holds no backend of pool "{pool}"')
        elif not held & set(fence) & active:
            yield Problem(("routes", at, "geo", "require"), f'holds no backend of pool "{pool}" but drained ones')


def _duplicates(raw: Table) -> Iterator[Problem]:
    """Two things that claim one place or one name."""
    yield from _twice(_route_places(raw), f"host and path are those of {OTHER}")
    named = ((("routes", at, "name"), route.get("name")) for at, route in _tables(raw.get("routes")))
    yield from _twice(named, f"is the name of {OTHER} too")
    tokens = list(_tables(table(raw, "admin").get("tokens")))
    for key in ("name", "file"):
        yield from _twice(
            ((("admin", "tokens", at, key), each.get(key)) for at, each in tokens), f"is the {key} of {OTHER} too"
        )
    for pool in table(raw, "pools"):
        own = [(path, backend) for path, owner, backend in _backends(raw) if owner == pool]
        urls = [((*path, "url"), _parsed(parse_backend_url, backend.get("url"))) for path, backend in own]
        same = list(_twice(urls, f"is the url of {OTHER} too"))
        yield from same
        ids = [
            ((*path, "id"), backend.get("id", getattr(url[1], "name", None)))
            for (path, backend), url in zip(own, urls, strict=True)
        ]
        again = {problem.path[:-1] for problem in same}
        yield from (found for found in _twice(ids, f"is the id of {OTHER} too") if found.path[:-1] not in again)
    yield from _twice(_addresses(raw), f"is the address of {OTHER} too")


def _twice(entries: Iterable[tuple[Path, Any]], message: str) -> Iterator[Problem]:
    """A problem for each entry whose value came before; None never counts."""
    seen: dict[str, Path] = {}
    for path, value in entries:
        if value is None:
            continue
        first = seen.setdefault(repr(value), path)
        if first is not path:
            yield Problem(path, message, first)


def _parsed(parse: Callable[[object], object], value: object) -> object:
    try:
        return parse(value)
    except ValueError:
        return None


def _route_places(raw: Table) -> Iterator[tuple[Path, Any]]:
    for at, route in _tables(raw.get("routes")):
        host = _parsed(parse_route_host, route.get("host", "*"))
        conditions = route.get("match"), route.get("path_regex")
        yield ("routes", at), None if host is None else (host, route.get("path", "/"), *conditions)


def _addresses(raw: Table) -> Iterator[tuple[Path, Any]]:
    listen = table(raw, "listen")
    texts: list[tuple[Path, object]] = [
        *((("listen", "http", at), text) for at, text in enumerate(items(listen.get("http")))),
        *((("listen", "https", at, "address"), each.get("address")) for at, each in _tables(listen.get("https"))),
    ]
    found = [(path, _parsed(parse_listen_address, text)) for path, text in texts]
    found.append((("admin", "listen"), _parsed(parse_address, table(raw, "admin").get("listen"))))
    for path, address in found:
        yield path, None if getattr(address, "port", None) == 0 else address


def _presence(raw: Table) -> Iterator[Problem]:
    """What no gateway can do without."""
    listen = raw.get("listen")
    if isinstance(listen, dict) and not listen.get("http") and not listen.get("https"):
        yield Problem(("listen",), 'has no address: give http = ["0.0.0.0:8080"] or https')
    for at, listener in _tables(table(raw, "listen").get("https")):
        if not listener.get("certificates") and not listener.get("acme"):
            yield Problem(("listen", "https", at), "has no certificate: give certificates or acme")
    for path, pool in ((("pools", name, "tls"), table(raw, "pools", name, "tls")) for name in table(raw, "pools")):
        if ("cert" in pool) != ("key" in pool):
            yield Problem(path, "needs cert and key together, or neither")
    for place, name, backend in _backends(raw):
        if "app" in backend and "proxy_protocol" in table(raw, "pools", name):
            yield Problem((*place, "app"), "is told the client's address anyway: proxy_protocol is for backends by url")


def _accounts(raw: Table) -> Iterator[Problem]:
    """One account at each directory of certificates."""
    first: dict[str, tuple[int, Table]] = {}
    for at, listener in _tables(table(raw, "listen").get("https")):
        acme = table(listener, "acme")
        if not isinstance(directory := acme.get("directory"), str):
            continue
        other, there = first.setdefault(directory, (at, acme))
        for key in ("email", "ca"):
            if acme.get(key) != there.get(key):
                yield Problem(("listen", "https", at, "acme"), f"{key} is another one than that of https[{other}]")


def _idle_rules(raw: Table) -> Iterator[Problem]:
    """A key that nothing could come of: `respond` answers everything, so nothing is left for a backend or the cache."""
    for at, route in _tables(raw.get("routes")):
        both = "redirect" in route and "respond" in route
        idle = (
            ("redirect", *_BEHIND)
            if "respond" in route
            else _BEHIND
            if "pool" not in route and "split" not in route
            else ()
        )
        why = "respond answers every request" if "respond" in route else "the route has no pool"
        if both or "respond" in route or "redirect" in route:
            yield from (Problem(("routes", at, key), f"has no effect: {why}") for key in idle if key in route)


_BEHIND = (
    *("pool", "split", "sticky", "mirror", "affinity", "cache", "strip_prefix", "rewrite", "request_headers", "geo"),
    *("timeouts", "retry", "upgrade", "bandwidth"),
)
_CHECKS: tuple[Callable[[Table], Iterator[Problem]], ...] = (
    _references,
    _fallbacks,
    _fences,
    _duplicates,
    _presence,
    _accounts,
    _idle_rules,
)
