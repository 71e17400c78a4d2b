"""A purge as it stands in the fleet's stream: bytes, and back.

    seal (as of a shared value: `record`) │ JSON: kind, value, soft, distrust, lasting, machine, actor, reason

One rule: an entry that cannot be read might be any purge, so it is taken for the widest one: everything is distrusted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from edge.cache.fleet.record import sealed, unsealed
from edge.cache.purge import Purge, PurgeKind

MAX_BYTES = 64 * 1024
UNREADABLE = Purge(PurgeKind.ALL, soft=True, distrust=True)


@dataclass(frozen=True, slots=True)
class FleetPurge:
    """One purge of the stream. A `lasting` one is an operator's; the others are what unsafe requests invalidated."""

    purge: Purge
    lasting: bool
    machine: str  # its id
    actor: str = ""
    reason: str = ""
    readable: bool = True

    def dumps(self, key: bytes = b"") -> bytes:
        """The entry's payload."""
        words = {"lasting": self.lasting, "machine": self.machine, "actor": self.actor, "reason": self.reason}
        return sealed(orjson.dumps({**self.purge.to_dict(), **words}), key)

    @classmethod
    def loads(cls, payload: bytes, key: bytes = b"") -> FleetPurge:
        """What an entry asks for; of one that cannot be read, the widest."""
        text = unsealed(payload, key) if len(payload) <= MAX_BYTES else None
        try:
            found: dict[str, Any] = orjson.loads(text) if text is not None else {}
            purge = Purge.from_dict(found)
            if purge.distrust and purge.kind is not PurgeKind.ALL:
                raise ValueError("only everything is distrusted")
            words = [found["machine"], found["actor"], found["reason"]]
            if not all(isinstance(word, str) for word in words) or not isinstance(found["lasting"], bool):
                raise ValueError("words")
            return cls(purge, found["lasting"], *(word[:500] for word in words))
        except (KeyError, ValueError, TypeError, AttributeError, UnicodeEncodeError):
            return cls(UNREADABLE, True, "", "", "an entry of the stream that cannot be read", readable=False)
