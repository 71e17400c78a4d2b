"""The certificates that a file names, opened as a worker would open them, and held against its routes.

One rule: as in `preflight`, nothing is changed; what cannot be used is an error at the key that names it.
"""

from __future__ import annotations

from collections.abc import Iterator
from time import time

from edge.adapters.tls import authorities, client_context
from edge.config.acme import Acme
from edge.config.loader import Config
from edge.config.positions import Path as KeyPath
from edge.control.certificates import WARN_DAYS, CertificateFacts, looked_at, shown_names, uncovered
from edge.errors import ConfigError

Found = tuple[KeyPath, str, bool]


def tls_findings(config: Config) -> Iterator[Found]:
    """(key, what is wrong, whether the gateway cannot start) of each."""
    if config.admin.tls is not None:
        yield from _judged(("admin", "tls"), looked_at("admin", config.admin.tls.cert, config.admin.tls.key))
    found: list[CertificateFacts] = []
    for at, listener in enumerate(config.listen.https):
        here: KeyPath = ("listen", "https", at)
        if listener.client_ca is not None:
            try:
                authorities(listener.client_ca)
            except ConfigError as error:
                yield (*here, "client_ca"), error.problems[0], True
        for index, pair in enumerate(listener.certificates):
            found.append(looked_at(str(listener.address), pair.cert, pair.key))
            yield from _judged((*here, "certificates", index), found[-1])
        if listener.acme is not None:
            found.append(CertificateFacts(str(listener.address), "", "", names=listener.acme.names))
            yield from _acme(config, listener.acme, (*here, "acme"))
    if config.listen.https and not any(each.problem for each in found):
        for number, host in uncovered(config, shown_names(found)):
            why = f"no certificate of listen.https covers {host}: clients refuse what they are shown"
            yield ("routes", number, "host"), why, False


def _acme(config: Config, values: Acme, path: KeyPath) -> Iterator[Found]:
    if values.ca is not None:
        try:
            client_context(values.ca, None, None, True)
        except ConfigError as error:
            yield (*path, "ca"), error.problems[0].removeprefix("tls."), True
    if not config.listen.http:
        yield path, "the server asks on port 80 for a proof: give listen.http, and have port 80 lead there", False


def _judged(path: KeyPath, facts: CertificateFacts) -> Iterator[Found]:
    left = facts.days_left(time())
    if facts.problem:
        yield path, facts.problem, True
    elif left is not None and left < 0:
        yield (*path, "cert"), f"certificate {facts.cert} expired {-left:.0f} days ago", False
    elif left is not None and left < WARN_DAYS[0]:
        yield (*path, "cert"), f"certificate {facts.cert} expires in {left:.0f} days", False
