"""What the data path asks of a listener's TLS (`adapters.listener_tls`), and whoever renews its certificates.

One rule: what is shown may change at any time; what is asked of clients stays as long as the listener has this object.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class ServerTls(Protocol):
    """TLS of one listener of clients."""

    context: Any  # an ssl.SSLContext: what new handshakes begin with, the same one whatever certificates are shown

    @property
    def asks_for_certificates(self) -> bool:
        """Whether clients are asked for certificates, which the handshake then verifies."""

    @property
    def requires_certificates(self) -> bool:
        """Whether no client is served without one."""

    def names(self, context: Any) -> frozenset[bytes] | None:
        """The names that the certificate covers which was chosen in this handshake. None where the client asked for
        no name, or for one that no certificate covers.
        """

    def show(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Use other certificates, given as paths of (chain, key), from the next handshake on. The first is for
        clients that ask for a name which none covers. Open connections and their sessions stay. Reads files, so
        it may run in a thread. Raises ConfigError, and then the old ones stay in use.
        """

    def tick(self, now: float) -> None:
        """Do what is due; called every few seconds with `now` in epoch seconds."""

    def after(self, lived: Any) -> ServerTls:
        """The object to go on with after a reload. It is `lived`, with this one's certificates, unless other
        settings changed too; so TLS sessions outlive a reload.
        """
