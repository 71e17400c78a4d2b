"""A configuration and this machine: files that it names are opened, budgets are compared with what there is.

    errors      the gateway could not start, or could not do what the key says
    warnings    it starts, but probably not as it was meant

One rule: nothing is made, changed or waited for. A folder that is not there yet must be possible to make.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from edge.adapters.app_check import APP, HOOK, folders, tried
from edge.adapters.geo import GeoReader
from edge.adapters.tls import client_context, unreadable
from edge.config.idle import idle_keys
from edge.config.loader import Config
from edge.config.positions import Path as KeyPath
from edge.config.positions import Problem
from edge.config.sources import Sources, put_together
from edge.config.types import shown
from edge.control.preflight_budgets import Machine, budget_findings, nearest_there
from edge.control.preflight_fleet import fleet_findings
from edge.control.preflight_rules import rule_findings
from edge.control.preflight_tls import tls_findings
from edge.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Findings:
    """Errors and warnings, each a complete line, in the order of the file."""

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    code: str = ""  # which code of applications and hooks it was


@dataclass(frozen=True, slots=True)
class _Found:
    path: KeyPath
    message: str
    fatal: bool = True
    other: KeyPath = ()


def preflight(config: Config, sources: Sources, machine: Machine | None = None) -> Findings:
    """What is wrong with a checked configuration here."""
    applications, code = _applications(config, sources.filename)
    found = [*_findings(config, sources.texts, machine or Machine.here()), *applications]
    found += [_Found(*each) for each in rule_findings(config)]
    if not found:  # to read the text anew for places takes a while
        return Findings(code=code)
    whole = put_together(sources)

    def told(fatal: bool) -> list[str]:
        return whole.lines(Problem(each.path, each.message, each.other) for each in found if each.fatal is fatal)

    return Findings(told(True), told(False), code)


def _findings(config: Config, text: str, machine: Machine) -> Iterator[_Found]:
    yield from (_Found(*each) for each in tls_findings(config))
    yield from _backends(config)
    yield from _files(config)
    yield from _geoip(config)
    yield from (_Found(*each) for each in budget_findings(config, machine))
    yield from _exposure(config)
    if config.snapshots is not None:
        from edge.control.preflight_snapshots import snapshot_findings  # not cheap: a start waits for it

        yield from (_Found(*each) for each in snapshot_findings(config, text))
    yield from (_Found(*each) for each in fleet_findings(config))
    yield from (_Found(each.path, each.message, False, each.other) for each in idle_keys(config))


def _applications(config: Config, filename: str) -> tuple[list[_Found], str]:
    """Applications and hooks are imported, in a process that ends with it; what cannot be, and which code it is."""
    places: dict[str, KeyPath] = {
        f"{APP} {each.app}": ("pools", name, "backends", at, "app")
        for name, pool in config.pools.items()
        for at, each in enumerate(pool.backends)
        if each.app is not None
    }
    for number, route in enumerate(config.routes):
        places.update((f"{HOOK} {name}", ("routes", number, "hooks", at)) for at, name in enumerate(route.hooks))
    if not places:
        return [], ""
    unusable, code = tried(list(places), folders(config.python_path, filename))
    found = [
        _Found(places[named], f"{named.partition(' ')[2]} cannot be loaded: {why}") for named, why in unusable.items()
    ]
    return found, code


# -- files -------------------------------------------------------------------------------------------------------------


def _backends(config: Config) -> Iterator[_Found]:
    for name, pool in config.pools.items():
        tls = pool.tls
        try:
            if tls.ca or tls.cert:
                client_context(tls.ca, tls.cert, tls.key, tls.verify)
        except ConfigError as error:
            yield _Found(("pools", name, "tls"), error.problems[0])


def _files(config: Config) -> Iterator[_Found]:
    folders: list[tuple[KeyPath, str]] = [(("state", "path"), config.state.path)]
    disk = config.cache.disk
    if disk is not None:
        folders.append((("cache", "disk", "path"), disk.path))
    for path, folder in folders:
        if (why := folder_problem(Path(folder))) is not None:
            yield _Found(path, f"{folder}: {why}")
    if config.log.access not in ("stdout", "off") and (why := log_problem(Path(config.log.access))) is not None:
        yield _Found(("log", "access"), f"{config.log.access}: {why}")
    tokens: list[tuple[KeyPath, str]] = [(("admin", "token_file"), config.admin.token_file)]
    tokens += [(("admin", "tokens", at, "file"), each.file) for at, each in enumerate(config.admin.tokens)]
    for path, token in tokens:
        if (why := _token_problem(Path(token))) is not None:
            yield _Found(path, f"{token}: {why}")


def folder_problem(path: Path) -> str | None:
    """Why a folder cannot be written into, or cannot be made."""
    there = nearest_there(path)
    if not there.is_dir():
        return "not a folder" if there == path else f"{there} is not a folder"
    if not os.access(there, os.W_OK | os.X_OK):
        return "cannot be written" if there == path else f"cannot be made in {there}: no permission"
    return None


def log_problem(path: Path) -> str | None:
    """Why the access log cannot be written; None if it can."""
    if path.is_dir():
        return "is a folder"
    if path.exists():
        return None if os.access(path, os.W_OK) else "cannot be written: no permission"
    return folder_problem(path.parent)


def _token_problem(path: Path) -> str | None:
    if not path.exists():
        return folder_problem(path.parent)
    why = unreadable(str(path))
    return None if why is None else f"cannot read the admin token: {why}"


def _geoip(config: Config) -> Iterator[_Found]:
    """A database that a file names must be usable; the default's absence matters only where places are asked for."""
    told: list[str] = []
    GeoReader(config.geoip.database, told.append)
    asked = any(pool.balance == "geo" for pool in config.pools.values()) or any(
        route.geo is not None and route.geo.prefer for route in config.routes
    )
    named = "database" in config.geoip.model_fields_set
    if told and (asked or named):
        yield _Found(("geoip", "database"), told[0].partition(";")[0], fatal=False)  # requests are served all the same


# -- exposure ----------------------------------------------------------------------------------------------------------


def _exposure(config: Config) -> Iterator[_Found]:
    """Warnings about settings that work, but give access to more clients than probably intended."""
    if not is_loopback(config.admin.listen.host) and config.admin.tls is None:
        yield _Found(
            ("admin", "listen"),
            f"{config.admin.listen} is not on loopback and has no TLS: tokens cross the network in clear text",
            fatal=False,
        )
    for key, said in (("trusted_proxies", "X-Forwarded-For"), ("proxy_protocol", "PROXY header")):
        for at, network in enumerate(getattr(config.listen, key)):
            if not isinstance(network, str) and network.prefixlen == 0:
                yield _Found(
                    ("listen", key, at),
                    f"{shown(str(network))} believes everybody's {said}: any client can pass for another",
                    fatal=False,
                )
    path = Path(config.state.path)
    if path.is_dir() and path.stat().st_mode & stat.S_IWOTH:
        yield _Found(("state", "path"), f"{path} can be written by everybody", fatal=False)


def is_loopback(host: str) -> bool:
    """Whether an address can only be reached from this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
