"""TLS of one listener: the certificates that it shows, chosen by the name that a client asks for (SNI).

    ClientHello ─► name ─► exact, wildcard, else the first or none (`unknown_names`) ─► on with that certificate

One rule: whether clients have to show certificates of their own is settled for the whole listener, never by name.
OpenSSL takes only the certificate from the context that a name chose; whether it asks the client for one is decided by
the context that the handshake began with. So all handshakes begin with one context, which is the same one as long as
the listener has these settings: its session tickets open nothing elsewhere, and outlive a change of certificates.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from time import time
from typing import Any

from edge.adapters.session_tickets import TicketSecret, share
from edge.adapters.tls import Pair, authorities, listening_context, loaded, names_of
from edge.config.loader import HttpsListener


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """The settings that all certificates of a listener share."""

    protocols: tuple[str, ...] = ("http/1.1",)  # by ALPN, the most wanted first
    client_ca: str = ""  # PEM; with it, clients are asked for certificates, which have to be of these authorities
    client_required: bool = False
    refuse_unknown: bool = False  # names that no certificate covers, and clients that ask for none

    def context(self) -> ssl.SSLContext:
        """A context without a certificate."""
        context = listening_context()
        context.set_alpn_protocols(self.protocols)
        if self.client_ca:
            context.verify_mode = ssl.CERT_REQUIRED if self.client_required else ssl.CERT_OPTIONAL
            context.load_verify_locations(cadata=self.client_ca)
        return context


class Certificates:
    """Contexts by the names that their certificates cover. Of several for one name, the first has it."""

    __slots__ = ("_by_name", "_else", "names")

    def __init__(self, settings: TlsSettings, pairs: Sequence[Pair]) -> None:
        """Raises ConfigError naming the file that cannot be used."""
        self.names: dict[ssl.SSLContext, frozenset[bytes]] = {}  # not of the one for names that none covers
        self._by_name: dict[str, ssl.SSLContext] = {}
        self._else = None if settings.refuse_unknown or not pairs else loaded(settings.context(), *pairs[0])
        for cert, key in pairs:
            context, names = loaded(settings.context(), cert, key), names_of(cert)
            self.names[context] = frozenset(name.encode() for name in names)
            for name in names:
                self._by_name.setdefault(name, context)

    def find(self, name: str | None) -> ssl.SSLContext | None:
        """The context for the name that a client asks for; None where the handshake is to be refused."""
        wanted = (name or "").lower().rstrip(".")
        by_name = self._by_name
        return by_name.get(wanted) or by_name.get("*." + wanted.partition(".")[2]) or self._else


class ListenerTls:
    """A listener's TLS (`dataplane.core.server_tls`)."""

    __slots__ = (
        "_certificates",
        "_ours",
        "_settings",
        "_step",
        "_tickets",
        "asks_for_certificates",
        "context",
        "requires_certificates",
    )

    def __init__(self, settings: TlsSettings, pairs: Sequence[Pair]) -> None:
        """Raises ConfigError naming the file that cannot be used."""
        self._settings = settings
        self._certificates = Certificates(settings, pairs)
        self.asks_for_certificates = bool(settings.client_ca)
        self.requires_certificates = self.asks_for_certificates and settings.client_required
        self.context = settings.context()
        self.context.sni_callback = self._choose
        self._tickets: TicketSecret | None = None
        self._ours = b""
        self._step = -1

    def names(self, context: Any) -> frozenset[bytes] | None:
        """See `dataplane.core.server_tls`."""
        return self._certificates.names.get(context)

    def show(self, pairs: Sequence[Pair]) -> None:
        """See `dataplane.core.server_tls`."""
        self._certificates = Certificates(self._settings, pairs)

    def share_sessions(self, tickets: TicketSecret, name: str, now: float) -> None:
        """Seal session tickets as all workers do for the listener of this name, where it has these settings."""
        self._tickets, self._ours = tickets, repr((name, self._settings)).encode()
        self.tick(now)

    def tick(self, now: float) -> None:
        """See `dataplane.core.server_tls`."""
        if self._tickets is not None:
            self._tickets.at(now)
            if self._tickets.step != self._step:
                self._step = self._tickets.step
                share(self.context, self._tickets.keys(self._ours))

    def after(self, lived: Any) -> ListenerTls:
        """See `dataplane.core.server_tls`."""
        if not isinstance(lived, ListenerTls) or lived._settings != self._settings:
            return self
        lived._certificates = self._certificates
        return lived

    def _choose(self, connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> int | None:
        """Called for each ClientHello, whether it has a name or not."""
        found = self._certificates.find(name)
        if found is None:
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        connection.context = found
        return None


def listener_tls(values: HttpsListener, state: str, tickets: TicketSecret, name: str) -> ListenerTls:
    """A listener's TLS, from its files as they are now, those of ACME in the state directory. Raises ConfigError."""
    settings = TlsSettings(
        protocols=values.protocols,
        client_ca="" if values.client_ca is None else authorities(values.client_ca),
        client_required=values.client_auth == "require",
        refuse_unknown=values.unknown_names == "refuse",
    )
    found = ListenerTls(settings, values.pems(state))
    found.share_sessions(tickets, name, time())
    return found
