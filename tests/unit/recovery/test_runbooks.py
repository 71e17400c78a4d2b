"""Runbooks: read as a whole or refused; carried out step by step, written down, gone on with, rehearsed."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from edge.errors import RecoveryError, RunbookFailed
from edge.recovery.runbook import Check, Deed, Runbook, Step, filled, read_runbook
from edge.sidecar.runbook import Clock, Log, Run, carry_out, rehearse

BOOK = """
name = "move"
description = "from one to another"
[parameters.region]
help = "which"
[parameters.kind]
help = "of point"
default = "full"
[[steps]]
name = "look"
do = "check"
check = { region = "{region}", in_flight = 0 }
timeout = "5s"
[[steps]]
name = "drain"
do = "drain"
region = "{region}"
when = { ready = true }
[[steps]]
name = "point"
do = "snapshot"
kind = "{kind}"
"""
SHIPPED = [each for each in files("edge").joinpath("runbooks").iterdir() if each.name.endswith(".toml")]


class FakeHands:
    """Deeds as lines; checks that are not so as long as `wrong` says why."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.wrong: dict[str, str] = {}
        self.broken: set[str] = set()
        self.asked = 0

    def holds(self, check: Check) -> str | None:
        self.asked += 1
        return self.wrong.get(check.what)

    def carry_out(self, step: Step, run: str) -> str:
        if step.name in self.broken:
            raise RecoveryError("it broke")
        self.did.append(f"{step.deed.value} {dict(step.values)} {run.partition('-')[0]}")
        return "done"


class FakeClock:
    def __init__(self) -> None:
        self.now = 1_795_000_000.0
        self.clock = Clock(lambda: self.now, lambda: self.now, self.sleep)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def book() -> Runbook:
    return filled(read_runbook(BOOK, "move.toml"), {"region": "eu"})


def run_all(book: Runbook, hands: FakeHands, log: Log, run: Run) -> list[str]:
    return [f"{step.name}: {said}" for step, said in carry_out(book, run, hands, log, FakeClock().clock)]


def test_steps_are_done_in_order_with_the_parameters(book: Runbook, tmp_path: Path) -> None:
    hands, log = FakeHands(), Log(tmp_path)
    run = log.begin(book, {"region": "eu"}, 1_795_000_000.0)
    assert run_all(book, hands, log, run) == ["look: region = eu, in_flight = 0: yes", "drain: done", "point: done"]
    assert hands.did == ["drain {'region': 'eu'} move", "snapshot {'kind': 'full'} move"]
    assert run.ended == "done"
    with pytest.raises(RunbookFailed, match="no run to go on with"):
        log.unfinished("move")


def test_a_run_that_broke_off_is_gone_on_with_where_it_was(book: Runbook, tmp_path: Path) -> None:
    hands, log = FakeHands(), Log(tmp_path)
    hands.broken = {"point"}
    with pytest.raises(RunbookFailed, match=r"point: it broke.*--resume"):
        run_all(book, hands, log, log.begin(book, {"region": "eu"}, 1_795_000_000.0))
    hands.broken = set()
    again = log.unfinished("move")
    assert again.parameters == {"region": "eu"} and again.ended == "point: it broke"
    said = run_all(book, hands, log, again)
    assert said == ["look: was done before", "drain: was done before", "point: done"]
    assert hands.did == ["drain {'region': 'eu'} move", "snapshot {'kind': 'full'} move"]


def test_a_step_is_written_down_before_the_next_begins(book: Runbook, tmp_path: Path) -> None:
    hands, log = FakeHands(), Log(tmp_path)
    for step, _ in carry_out(book, log.begin(book, {}, 1_795_000_000.0), hands, log, FakeClock().clock):
        if step.name == "drain":
            break  # killed here
    assert [each["step"] for each in log.unfinished("move").done] == ["look", "drain"]


def test_a_check_waits_for_its_time_and_a_precondition_does_not(book: Runbook, tmp_path: Path) -> None:
    hands, log = FakeHands(), Log(tmp_path)
    hands.wrong = {"region": "7 requests are in flight"}
    with pytest.raises(RunbookFailed, match=r"not within 5 s.*7 requests"):
        run_all(book, hands, log, log.begin(book, {}, 1_795_000_000.0))
    assert hands.asked == 11 and hands.did == []
    hands.wrong, hands.asked = {"ready": "it starts"}, 0
    with pytest.raises(RunbookFailed, match="precondition does not hold: ready = True: it starts"):
        run_all(book, hands, log, log.begin(book, {}, 1_795_000_001.0))
    assert hands.asked == 2 and hands.did == []


def test_who_has_to_wait_is_told_once_for_what(book: Runbook, tmp_path: Path) -> None:
    hands, log = FakeHands(), Log(tmp_path)
    waits: list[tuple[str, str]] = []
    hands.wrong = {"region": "7 requests are in flight"}
    run = log.begin(book, {}, 1_795_000_000.0)
    with pytest.raises(RunbookFailed):
        list(carry_out(book, run, hands, log, FakeClock().clock, lambda step, why: waits.append((step.name, why))))
    assert waits == [("look", "7 requests are in flight")]


def test_a_rehearsal_does_nothing_and_says_what_stands_in_the_way(book: Runbook) -> None:
    hands = FakeHands()
    hands.wrong = {"ready": "it starts"}
    assert [said.partition(":")[0] for _, said in rehearse(book, hands)] == [
        "would be done",
        "would wait or stop",
        "would be done",
    ]
    assert hands.did == []


def test_parameters_must_be_known_and_given() -> None:
    book = read_runbook(BOOK, "move.toml")
    with pytest.raises(RunbookFailed, match="--set region"):
        filled(book, {})
    with pytest.raises(RunbookFailed, match="no parameter regoin; known: region, kind"):
        filled(book, {"regoin": "eu"})
    sly = filled(book, {"region": "{kind}"})
    assert sly.steps[1].values["region"] == "{kind}"  # text, not read again


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (('do = "drain"', 'do = "shell"'), "steps[1].do: must be one of check, drain"),
        (('region = "{region}"\nwhen', 'regoin = "{region}"\nwhen'), "unknown key, did you mean region"),
        (("{ ready = true }", "{ redy = true }"), "must be a table with one of ready"),
        (("{ ready = true }", "{ ready = true, color = 1 }"), "steps[1].when.color: unknown key"),
        (('timeout = "5s"', "timeout = 5"), "steps[0].timeout: must be a duration"),
        (('"{kind}"', '"{kidn}"'), "there is no parameter kidn"),
        (('name = "point"', 'name = "drain"'), "'drain' is the name of two"),
        (('description = "from one to another"', ""), "description: is missing"),
        (("[[steps]]", "[[stesp]]"), "did you mean steps"),
        (('name = "move"', "name = "), "not valid TOML"),
    ],
)
def test_what_is_no_runbook_is_refused_as_a_whole(change: tuple[str, str], words: str) -> None:
    with pytest.raises(RunbookFailed) as refused:
        read_runbook(BOOK.replace(*change), "move.toml")
    assert words in refused.value.detail and "move.toml" in refused.value.detail


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_the_shipped_ones_can_be_read(path: Path) -> None:
    book = read_runbook(path.read_text(), path.name)
    assert f"{book.name}.toml" == path.name
    needed = {name: "x" for name, (_, default) in book.parameters.items() if default is None}
    assert all(step.timeout_s > 0 for step in filled(book, needed).steps)


def test_three_are_shipped() -> None:
    assert sorted(each.name for each in SHIPPED) == ["bad-config.toml", "lose-a-region.toml", "rebuild-a-machine.toml"]
    assert Deed.RESTORE in {step.deed for each in SHIPPED for step in read_runbook(each.read_text(), "").steps}
