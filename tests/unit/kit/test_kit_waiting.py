"""Waiting for facts: one helper does it, with a bound, and tests have no loops of their own for it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from kit.waiting import until, until_blocking

TESTS = Path(__file__).resolve().parents[2]
PACED = {  # loops that sleep and wait for nothing: they send, answer or count at a pace
    "integration/apps/beside_under_test.py",
    "integration/apps/faulty.py",
    "integration/test_applications.py",
    "integration/test_compute_examples.py",
    "integration/test_probes.py",
    "integration/test_reload_processes.py",
    "kit/regions.py",
    "kit/waiting.py",
    "scenarios/test_mass.py",
}


async def test_it_returns_the_fact_of_a_function_or_a_coroutine() -> None:
    looks: list[int] = []

    async def asked() -> list[int]:
        looks.append(len(looks))
        return looks[2:]

    assert await until(asked) == [2]
    assert await until(lambda: looks[1:]) == [1, 2]
    assert until_blocking(lambda: looks[2:]) == [2]


async def test_a_failure_names_the_line_the_last_value_and_what_is_said() -> None:
    with pytest.raises(AssertionError, match=r"0.01 s: .*test_kit_waiting.py:\d+; last 0; the log"):
        await until(lambda: 0, 0.01, said=lambda: "the log")
    with pytest.raises(AssertionError, match=r"0.01 s: .*test_kit_waiting.py:\d+; last \[\]$"):
        until_blocking(lambda: [], 0.01)  # noqa: PIE807 (it has a line)


def polls(path: Path) -> list[int]:
    """Lines of loops that sleep for a time."""
    found = []
    for loop in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(loop, ast.While | ast.For):
            for call in ast.walk(loop):
                sleeps = isinstance(call, ast.Call) and ast.unparse(call.func).endswith("sleep") and call.args
                if sleeps and ast.unparse(call.args[0]) != "0":
                    found.append(loop.lineno)
    return found


def test_no_test_polls_by_itself() -> None:
    found = {path.relative_to(TESTS).as_posix(): polls(path) for path in TESTS.rglob("*.py")}
    own = {name: lines for name, lines in found.items() if lines and name not in PACED}
    assert not own, "wait by `kit.waiting.until`; a loop that waits for nothing stands in PACED"
