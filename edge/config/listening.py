"""Where a gateway listens, by name: the name under which a socket is kept over reloads and handed to a successor.

One rule: no two listeners have one name. It is the address as the file has it; where the file has it more than once
(port 0, any free one), the later ones have a number.
"""

from __future__ import annotations

from typing import NamedTuple

from edge.config.loader import HttpsListener, Listen
from edge.config.types import Address, UnixAddress


class Place(NamedTuple):
    """One listener; `https` is its table, where it speaks TLS."""

    name: str
    address: Address | UnixAddress
    https: HttpsListener | None = None


def spoken(listen: Listen, scheme: str) -> list[dict[str, str]]:
    """Which listeners serve a scheme, and what clients may speak there, the most wanted first."""
    plain = "HTTP/1.1, HTTP/2 from the first byte on" if listen.h2c else "HTTP/1.1"
    return [
        {"listener": name, "protocols": plain if https is None else ", ".join(https.protocols)}
        for name, _, https in places(listen)
        if (https is not None) is (scheme == "https")
    ]


def places(listen: Listen) -> list[Place]:
    """All of them, in the order of the file, those without TLS first."""
    entries = [*((each, None) for each in listen.http), *((each.address, each) for each in listen.https)]
    found: list[Place] = []
    seen: dict[str, int] = {}
    for address, https in entries:
        name = str(address)
        seen[name] = count = seen.get(name, 0) + 1
        found.append(Place(name if count == 1 else f"{name}#{count}", address, https))
    return found
