"""One worker for each section of cache behaviour; at the end of the run, how many cases of each passed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from kit.cachelab import Lab, open_lab

SECTIONS = {
    1: "a transparent intermediary",
    2: "what may be stored",
    3: "freshness",
    4: "targeted cache control",
    5: "response directives",
    6: "Vary and the key",
    7: "validation",
    8: "unsafe methods",
    9: "serving stale",
    10: "ranges",
    11: "request directives",
    12: "what is served",
    13: "interim responses",
}
_FILE = re.compile(r"test_cb_s([0-9]{2})_")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["memory", "disk"])
async def section_lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lab]:
    """The transparent cache that the rules are about; once with memory alone, once with next to none and a disk."""
    if request.param == "memory":
        async with open_lab() as lab:
            yield lab
        return
    async with open_lab(memory="1KiB", disk=str(tmp_path_factory.mktemp("tier"))) as lab:
        assert lab.store.disk is not None
        yield lab


@pytest_asyncio.fixture(loop_scope="module")
async def lab(section_lab: Lab) -> AsyncIterator[Lab]:
    """The same with a target of its own, and nothing left running after the case."""
    section_lab.fresh()
    yield section_lab
    await section_lab.rest()  # a flight, a reservation or a request to the origin that stays fails here
    assert not section_lab.origin.problems


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table by section."""
    counts: dict[int, Counter[str]] = {number: Counter() for number in SECTIONS}
    for word in ("passed", "failed", "error"):
        for report in terminalreporter.stats.get(word, ()):
            found = _FILE.search(getattr(report, "nodeid", ""))
            if found is not None:
                counts[int(found[1])][word] += 1
    if not any(counts.values()):
        return
    terminalreporter.section("cache behaviour by section")
    for number, name in SECTIONS.items():
        told = ", ".join(f"{count} {word}" for word, count in counts[number].items()) or "not run"
        terminalreporter.write_line(f"§{number:<3}{name:<32}{told}")
