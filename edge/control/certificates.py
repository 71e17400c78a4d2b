"""The certificates that listeners show: what each is, what is wrong with it, and which hosts of routes none covers.

One rule: a file is looked at as a worker would load it, so that what is told here is what clients get.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from time import time

from edge.adapters.tls import Pair, expiry, issuer_of, names_of, server_context, stamps
from edge.config.loader import Config
from edge.control.events import Events
from edge.errors import ConfigError

DAY_S = 86400.0
LOOK_S = 600.0  # how often their ends are looked at
FILES_S = 2.0  # and whether the files are others
WARN_DAYS = (14, 7, 3, 1, 0)  # before the end, when it is told


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """One certificate; `problem` says why it cannot be shown."""

    listener: str  # where
    cert: str
    key: str
    names: tuple[str, ...] = ()
    issuer: str = ""
    ends_at: float | None = None
    problem: str = ""

    def days_left(self, now: float) -> float | None:
        """Until its end; negative after it."""
        return None if self.ends_at is None else (self.ends_at - now) / DAY_S


def looked_at(listener: str, cert: str, key: str) -> CertificateFacts:
    """A certificate with its key, as they are now."""
    try:
        server_context(cert, key)
    except ConfigError as error:
        return CertificateFacts(listener, cert, key, problem=error.problems[0])
    return CertificateFacts(listener, cert, key, tuple(names_of(cert)), issuer_of(cert), expiry(cert))


def certificates(config: Config) -> list[CertificateFacts]:
    """All of them, the admin listener's last."""
    found = [
        looked_at(str(listener.address), cert, key)
        for listener in config.listen.https
        for cert, key in listener.pems(config.state.path)
    ]
    if config.admin.tls is not None:
        found.append(looked_at("admin", config.admin.tls.cert, config.admin.tls.key))
    return found


def uncovered(config: Config, names: set[str]) -> Iterator[tuple[int, str]]:
    """The routes, by number, whose host is none of these names: clients that come over TLS would refuse what is shown.

    Nothing is said of routes for any host, and of those that TLS clients do not get to.
    """
    for at, route in enumerate(config.routes):
        host = route.host.rpartition(":")[0] if route.host.rpartition(":")[2].isdigit() else route.host
        plain = route.match is not None and route.match.scheme == "http"
        if host == "*" or host.startswith("[") or plain or route.internal:
            continue
        if host not in names and (host.startswith("*.") or "*." + host.partition(".")[2] not in names):
            yield at, host


def shown_names(found: list[CertificateFacts]) -> set[str]:
    """What the certificates of the listeners for clients cover."""
    return {name for each in found if each.listener != "admin" for name in each.names}


class Ends:
    """Events for certificates that are about to end: one on each of WARN_DAYS, and anew for a certificate that
    replaces it.
    """

    def __init__(self) -> None:
        self._told: dict[tuple[str, float], int] = {}

    def due(self, found: list[CertificateFacts], now: float) -> Iterator[dict[str, object]]:
        """The events that are due: a certificate ends soon, or has ended."""
        known, self._told = self._told, {}
        for each in found:
            left = each.days_left(now)
            if left is None or each.ends_at is None:
                continue
            passed = min((days for days in WARN_DAYS if left <= days), default=None)
            if passed is None:
                continue
            before = known.get((each.cert, each.ends_at))
            self._told[each.cert, each.ends_at] = passed
            if before is None or passed < before:
                told = f"ended {-left:.0f} days ago" if left < 0 else f"ends in {left:.1f} days"
                yield {"certificate": each.cert, "days": round(left, 1), "evidence": told}


class Replaced:
    """Sees when the files that an operator named are others than those that are shown. Taken on are they when they have
    been the same for two looks, and all of them are good: one that is not leaves the old ones where they are."""

    def __init__(self) -> None:
        self._shown: dict[Pair, object] = {}
        self._seen: dict[Pair, object] = {}
        self._refused: dict[Pair, object] = {}

    def look(self, config: Config) -> list[CertificateFacts] | None:
        """None when nothing changed. Otherwise the new certificates; if some have a problem only those, and once."""
        pairs = [(pair.cert, pair.key) for listener in config.listen.https for pair in listener.certificates]
        before, self._seen = self._seen, {pair: stamps(*pair) for pair in pairs}
        self._shown = {pair: self._shown.get(pair, found) for pair, found in self._seen.items()}
        changed = [pair for pair, found in self._seen.items() if found != self._shown[pair]]
        if not changed or self._seen != before or self._seen == self._refused:
            return None
        new = [looked_at("", *pair) for pair in changed]
        wrong = [each for each in new if each.problem]
        if wrong:
            self._refused = self._seen
        else:
            self._shown = self._seen
        return wrong or new


async def watch(config: Callable[[], Config], events: Events, show: Callable[[], Awaitable[None]]) -> None:
    """For as long as the gateway runs: tell of certificates that are about to end, and have renewed ones shown."""
    ends, files, next_at = Ends(), Replaced(), 0.0
    while True:
        if time() >= next_at:
            next_at = time() + LOOK_S
            for facts in ends.due(await asyncio.to_thread(certificates, config()), time()):
                events.add("certificate.ending", facts)
        found = await asyncio.to_thread(files.look, config())
        for each in found or ():
            told = {
                "certificate": each.cert,
                "evidence": each.problem or f"ends in {each.days_left(time()) or 0:.0f} days",
            }
            events.add("certificate.unusable" if each.problem else "certificate.renewed", told)
        if found and not found[0].problem:
            await show()
        await asyncio.sleep(FILES_S)
