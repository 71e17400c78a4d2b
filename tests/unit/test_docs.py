"""The pages for people: those that are made are up to date, and every link leads to a file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from kit.reference import outdated

from edge.cache.flights import Why
from edge.cache.verdict import Reason
from edge.http.cache_status import Forward

ROOT = Path(__file__).resolve().parents[2]
PAGES = [page for page in ROOT.rglob("*.md") if not any(part.startswith(".") for part in page.relative_to(ROOT).parts)]
LINK = re.compile(r"\]\(([^)#:]+)(#[^)]*)?\)")


def test_the_reference_is_what_the_program_says() -> None:
    assert list(outdated()) == [], "run `make docs`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    missing = [link for link, _ in LINK.findall(page.read_text(encoding="utf-8")) if not (page.parent / link).exists()]
    assert missing == []


def test_every_word_of_cache_status_is_explained() -> None:
    page = (ROOT / "docs/caching.md").read_text(encoding="utf-8")
    words = {each.value for kind in (Reason, Why) for each in kind} - {"rule", "fresh"}  # rule:<name>; a hit's
    words |= {f"fwd={each.value.decode()}" for each in Forward} - {"fwd=miss"}  # a word of RFC 9211 that is not used
    assert not {word for word in words if not re.search(f"`(detail=)?{word}`", page)}


def test_the_kit_is_told_whole() -> None:
    page = (ROOT / "tests/README.md").read_text(encoding="utf-8").partition("## The kit")[2]
    modules = {path.stem for path in (ROOT / "tests/kit").glob("*.py")} - {"__init__"}
    assert modules <= set(re.findall("`([a-z0-9_]+)`", page))


@pytest.mark.parametrize("room", ["control", "dataplane"])
def test_files_that_a_room_describes_are_there(room: str) -> None:
    folder = ROOT / "edge" / room
    known = {path.stem for path in folder.rglob("*.py")} | {path.name for path in folder.rglob("*") if path.is_dir()}
    rows = re.findall(r"^\| (`[^|]+) \|", (folder / "README.md").read_text(encoding="utf-8"), re.M)
    named = {
        name.rstrip("/").rpartition("/")[2].removesuffix(".py") for row in rows for name in re.findall("`([^`]+)`", row)
    }
    assert rows
    assert not named - known
