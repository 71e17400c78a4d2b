"""Two configurations beside each other: which keys differ, and which of those a running gateway cannot take on.

    routes by their name, backends by their id, the rest by key            routes[/api].cache.default_ttl

One rule: a key is taken on by a reload only where this file says so; what it does not name keeps its running value
until the gateway is upgraded or restarted, and is named in the answer, with which of the two it takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edge.config.loader import Config
from edge.config.types import Section
from edge.control.admin.views import plain

# Whole tables, or some keys of one.
TAKEN: dict[str, frozenset[str] | None] = {
    "listen": frozenset(
        (
            *("http", "https", "h2c", "http2", "workers", "backlog", "socket_mode"),
            *("trusted_proxies", "proxy_protocol", "cdn_id"),
        )
    ),
    "limits": None,
    "admin": frozenset(("token_file", "tokens", "hosts", "metrics_open", "reload_on_change")),
    "cache": frozenset(("memory", "max_object", "min_uses", "eviction")),
    "geoip": None,
    "regions": None,
    "pools": None,
    "routes": None,
    "snapshots": None,
    "log": frozenset(("access", "format", "level", "otlp", "sample", "sampled_by")),
    "metrics": None,
    "include": None,
    "python_path": None,
}
RESTART = frozenset(("state",))  # tables that an upgrade keeps as well: the journal and its lock are handed over
_NAMES = {"routes": "name", "backends": "id", "tokens": "name"}


def taken_on_by(key: str) -> str:
    """What it takes until a change of a key is in force: "reload", "upgrade" or "restart"."""
    table, _, rest = key.partition(".")
    table = table.partition("[")[0]
    taken = TAKEN.get(table, frozenset())
    if taken is None or (taken and (not rest or rest.replace("[", ".").partition(".")[0] in taken)):
        return "reload"
    return "restart" if table in RESTART else "upgrade"


def needs(keys: Sequence[str]) -> dict[str, list[str]]:
    """What takes on which of these keys, that a reload did not."""
    found: dict[str, list[str]] = {}
    for key in keys:
        found.setdefault(taken_on_by(key), []).append(key)
    return found


@dataclass(frozen=True, slots=True)
class Difference:
    """A key that differs between two configurations."""

    key: str
    was: Any
    now: Any

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"key": self.key, "was": self.was, "is": self.now}


def differences(before: Config, after: Config) -> list[Difference]:
    """Every key that differs, in the order of the file. Secrets are hidden."""
    return [] if before == after else list(_compared(before, after, "", ""))


def _compared(old: Any, new: Any, key: str, name: str) -> Iterator[Difference]:
    """Of two values that differ. What is only on one side is one difference, however much it holds; `name` is the last
    one of the key."""
    parts, others = _parts(old, name), _parts(new, name)
    if parts is None or others is None:
        yield Difference(key, _said(old, plain(old, name)), _said(new, plain(new, name)))
        return
    for step in dict.fromkeys((*others, *parts)):
        was, now = parts.get(step), others.get(step)
        if was != now:  # nearly all are the same, and need no name
            inner = f"[{step}]" if isinstance(old, tuple) else f".{step}" if key else str(step)
            yield from _compared(was, now, key + inner, str(step))


def _said(value: Any, shown: Any) -> Any:
    """Of a table that is only on one side, what its file says: a new route is a few keys, not all defaults."""
    if isinstance(value, Section) and isinstance(shown, dict):
        return {
            name: _said(getattr(value, name), found) for name, found in shown.items() if name in value.model_fields_set
        }
    return shown


def _parts(value: Any, name: str) -> Mapping[Any, Any] | None:
    """What a table or a list of tables holds, by name or place; None for anything else."""
    if isinstance(value, Section):
        return {each: getattr(value, each) for each in type(value).model_fields}
    if isinstance(value, dict):
        return value
    if isinstance(value, tuple) and value and all(isinstance(item, Section) for item in value):
        named = _NAMES.get(name)
        return {getattr(item, named, at) if named else at: item for at, item in enumerate(value)}
    return None


def starts_anew(after: Config, running: Config) -> bool:
    """Whether something differs that a worker only reads when it starts."""
    return after.cache.eviction != running.cache.eviction


def pinned(after: Config, running: Config) -> tuple[Config, list[str]]:
    """The new configuration with the running values where a reload cannot change them, and the keys of those."""
    kept: dict[str, Any] = {}
    for name in type(after).model_fields:
        new, old = getattr(after, name), getattr(running, name)
        taken = TAKEN.get(name, frozenset())
        if taken is None or new == old:
            continue
        if not isinstance(new, Section) or not isinstance(old, Section):
            kept[name] = old
            continue
        fixed = {key: getattr(old, key) for key in type(new).model_fields if key not in taken}
        kept[name] = new.model_copy(update=fixed)
    found = after.model_copy(update=kept)
    return found, [each.key for each in differences(found, after)]
