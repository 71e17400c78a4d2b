"""Whether a backend is well, by the word of several machines that probe it.

One rule: more than half of those that know decide. Where there is no such half (two machines that disagree, or nobody
else's word) each machine believes its own probes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from edge.balance.health import Health


class QuorumVerdict(NamedTuple):
    """The health to believe, and how many machines say what; our own word is counted."""

    health: Health
    up: int
    down: int


def quorum(own: Health, others: Iterable[Health]) -> QuorumVerdict:
    """The health of a backend by the word of all machines. Machines that do not know it are not counted."""
    words = [own, *others]
    up, down = words.count(Health.HEALTHY), words.count(Health.UNHEALTHY)
    if up == down:
        return QuorumVerdict(own, up, down)
    return QuorumVerdict(Health.HEALTHY if up > down else Health.UNHEALTHY, up, down)
