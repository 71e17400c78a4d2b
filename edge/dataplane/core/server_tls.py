"""What the data path asks of a listener's TLS (`adapters.listener_tls`), and whoever renews its certificates.

One rule: what is shown may change at any time; what is asked of clients stays as long as the listener has this object.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol


class ServerTls(Protocol):
    """TLS of one listener of clients."""

    context: Any  # an ssl.SSLContext: what new handshakes begin with, the same one whatever certificates are shown

    on_refused: Callable[[], None]  # called while a ClientHello is read for whose name there is nothing to show

    @property
    def asks_for_certificates(self) -> bool:
        """Whether clients are asked for certificates, which the handshake then verifies."""

    @property
    def requires_certificates(self) -> bool:
        """Whether no client is served without one."""

    def names(self, context: Any) -> frozenset[bytes] | None:
        """What the certificate covers that a handshake chose for the name which it asked for; None where it asked for
        none, or for one that nothing covers."""

    def show(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Show other certificates, as paths of (chain, key), from the next handshake on; the first is for clients that
        ask for a name which none covers. Connections that are open, and their sessions, stay. Reads files, and may be
        called from a thread. Raises ConfigError: then those before are shown on."""

    def tick(self, now: float) -> None:
        """Every few seconds; `now` in epoch seconds."""

    def after(self, lived: Any) -> ServerTls:
        """The one to go on with where `lived` served the listener until now: that one, with the certificates of this
        one, unless more than certificates is different. So sessions outlive a reload."""
