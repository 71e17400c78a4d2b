"""What is believed of a backend's health when machines disagree."""

from __future__ import annotations

from typing import Any

import pytest

from edge.balance.health import Health
from edge.balance.quorum import QuorumVerdict, quorum
from edge.cache.fleet.machines import SILENT_S, Machine, Machines
from edge.control.fleet.opinions import Opinions
from edge.control.membership import Key

UP, DOWN, UNKNOWN = Health.HEALTHY, Health.UNHEALTHY, Health.UNKNOWN
KEY: Key = ("web", "b1")


@pytest.mark.parametrize(
    ("own", "others", "said"),
    [
        (UP, [], UP), (DOWN, [], DOWN), (UNKNOWN, [], UNKNOWN),
        (UP, [DOWN], UP), (DOWN, [UP], DOWN),  # two that disagree: each believes itself
        (UP, [DOWN, DOWN], DOWN), (DOWN, [UP, UP], UP), (DOWN, [UP, DOWN], DOWN),
        (UP, [DOWN, DOWN, UP], UP), (DOWN, [UP, UP, DOWN], DOWN),  # no majority
        (UNKNOWN, [DOWN], DOWN), (UNKNOWN, [UP, DOWN], UNKNOWN), (UP, [UNKNOWN, UNKNOWN], UP),
    ],
)  # fmt: skip
def test_most_of_those_that_know_decide(own: Health, others: list[Health], said: Health) -> None:
    word = quorum(own, others)
    known = [each for each in (own, *others) if each is not UNKNOWN]
    assert (word.health, word.up, word.down) == (said, known.count(UP), known.count(DOWN))


class World:
    """One machine, what it hears, and what it believes."""

    def __init__(self) -> None:
        self.machines = Machines(30.0)
        self.live: dict[Key, Health] = {KEY: UNKNOWN}
        self.told: list[tuple[Health, str]] = []
        self.disputes: list[QuorumVerdict] = []
        self.hurried = 0
        self.opinions = Opinions("me", self.machines, self, self.hurry)

    def hurry(self) -> None:
        self.hurried += 1

    def believed(self, key: Key) -> Health | None:
        return self.live.get(key)

    def believe(self, key: Key, health: Health, evidence: str) -> None:
        self.live[key] = health
        self.told.append((health, evidence))

    def disputed(self, key: Key, own: Health, word: QuorumVerdict) -> None:
        self.disputes.append(word)

    def hear(self, now: float, **machines: Any) -> None:
        found = [
            Machine(name, name, now, "h", "r", 1, 30.0, False, {"health": told}) for name, told in machines.items()
        ]
        self.machines.see(found, now, now)
        self.opinions.look(("h", "r"), now)


def test_the_others_overrule_our_probes_until_nobody_is_heard() -> None:
    world = World()
    world.opinions.judged(KEY, DOWN, "3 failures in a row", 100.0)
    assert world.live[KEY] is DOWN and world.hurried == 1
    world.hear(100.5, me={"up": ["web/b1"]}, a={"up": ["web/b1"]})
    assert world.live[KEY] is DOWN and not world.disputes, "one against one; its own word is not the server's to tell"
    world.hear(101.0, a={"up": ["web/b1"]}, b={"up": ["web/b1"]})
    assert world.live[KEY] is UP and [(word.up, word.down) for word in world.disputes] == [(2, 1)]
    assert world.told[-1][1] == "2 of 3 machines say so; here: 3 failures in a row"
    world.opinions.look(("", ""), 101.0 + SILENT_S + 0.1)
    assert world.live[KEY] is DOWN and not world.opinions.disputes, "it judges alone"


def test_what_is_down_for_most_is_down_for_who_reaches_it() -> None:
    world = World()
    world.opinions.judged(KEY, UP, "first success", 100.0)
    world.hear(100.5, a={"down": ["web/b1"]}, b={"down": ["web/b1"]})
    assert world.live[KEY] is DOWN
    world.hear(101.5, a={"down": ["web/b1"]}, b={"up": ["web/b1"]})
    assert world.live[KEY] is UP and not world.opinions.disputes


def test_another_address_is_judged_anew_and_nothing_is_made_of_noise() -> None:
    world = World()
    world.opinions.judged(KEY, UP, "first success", 100.0)
    for noise in (7, [], {"up": 7}, {"down": [["web/b1"], 8, None, "web/b2"]}, {"down": {"web/b1": 1}}):
        world.hear(101.0, a=noise, b=noise)
        assert world.live[KEY] is UP
    assert world.opinions.told() == {"health": {"up": ["web/b1"], "down": []}}
    world.opinions.only([])
    assert world.opinions.told() == {"health": {"up": [], "down": []}}
    world.hear(102.0, a={"down": ["web/b1"]}, b={"down": ["web/b1"]})
    assert world.live[KEY] is UP, "nothing is known of it here yet"
