"""Every list from outside is read within a bound of members, and never half understood past it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from edge.errors import ResponseInvalid
from edge.http import field_line
from edge.http import fields as http_fields
from edge.http.cache_control import parse_cache_control
from edge.http.fields import (
    MAX_MEMBERS,
    encoding_key,
    joined_normal,
    language_key,
    members,
    preferred_language,
    tag_listed,
    tag_members,
    vary_names,
)
from edge.http.grammar import Limits, request_block, response_head
from edge.http.message import Fields
from edge.http.ranges import parse_range
from edge.http.structured import parse_dictionary, parse_list

LONG = 16_000
LIMITS = Limits()


def test_no_more_members_are_read_than_the_bound() -> None:
    assert len(members(b"a," * LONG)) == MAX_MEMBERS
    assert len(members(b'a,"b",' * LONG)) == MAX_MEMBERS
    assert len(tag_members(b'"a",' * LONG)) == MAX_MEMBERS
    assert members(b"a," * (MAX_MEMBERS - 1)) == [b"a"] * (MAX_MEMBERS - 1)


@pytest.mark.parametrize(
    ("read", "meaning"),
    [
        (lambda: parse_list(b"a, " * LONG + b"a"), None),
        (lambda: parse_list(b"(" + b"a " * LONG + b")"), None),
        (lambda: parse_list(b"a" + b";b" * LONG), None),
        (lambda: parse_dictionary(b"a, " * LONG + b"b"), None),
        (lambda: parse_dictionary(b"a=(" + b"1 " * LONG + b")"), None),
        (lambda: vary_names(Fields([(b"Vary", b"a," * LONG)])), None),
        (lambda: vary_names(Fields([(b"Vary", b"a," * 20)] * 20)), None),
        (lambda: parse_range(b"bytes=" + b"1-," * LONG), None),
        (lambda: preferred_language(b"en," * LONG), None),
        (lambda: parse_cache_control((b"max-age=60," * LONG,)).no_store, True),
        (lambda: parse_cache_control((b"public," * 40,) * 10).no_store, True),
        (lambda: encoding_key(b"gzip," * LONG, (b"gzip",)), b""),
        (lambda: language_key(b"En," * LONG), b"en," * LONG),
        (lambda: joined_normal((b"a , " * LONG,)), b"a , " * (LONG - 1) + b"a ,"),
    ],
)
def test_what_a_list_means_that_is_too_long_to_be_read(read: Callable[[], Any], meaning: Any) -> None:
    assert read() == meaning


def test_a_list_within_the_bound_is_read_whole() -> None:
    assert len(parse_list(b", ".join([b"a;b=1"] * MAX_MEMBERS)) or ()) == MAX_MEMBERS
    assert len(parse_dictionary(b", ".join(b"k%d=1" % n for n in range(MAX_MEMBERS))) or ()) == MAX_MEMBERS
    assert len(vary_names(Fields([(b"Vary", b",".join(b"n%d" % n for n in range(200)))])) or ()) == 200


@pytest.mark.parametrize("name", [b"Connection", b"Upgrade"])
def test_heads_with_a_list_without_end_are_refused(name: bytes) -> None:
    line = b"%b: %b\r\n" % (name, b"a," * 4000)
    block = request_block(b"Host: a\r\n" + line, LIMITS)
    assert block.error is not None and block.error.status == 400
    with pytest.raises(ResponseInvalid):
        response_head(b"HTTP/1.1 200 OK\r\n" + line + b"\r\n", LIMITS)


@pytest.mark.parametrize("strong", [True, False])
@pytest.mark.parametrize("tag", [b'"' + b"e" * 8000 + b'"', b'W/"' + b"e" * 8000 + b'"', b"e" * 8000])
def test_a_list_of_tags_is_looked_through_without_reading_the_stored_one_again(
    tag: bytes, strong: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[bytes] = []
    real = http_fields.is_tag
    monkeypatch.setattr(http_fields, "is_tag", lambda value: looked.append(value) or real(value))
    assert not tag_listed(b'"a",' * 8000, tag, strong=strong)
    assert len(looked) <= 1


def test_the_names_that_are_remembered_are_short() -> None:
    field_line._names.clear()
    request_block(b"".join(b"N%d-%b: 1\r\n" % (n, b"x" * 300) for n in range(50)), LIMITS)
    assert sum(map(len, field_line._names)) == 0


# -- patterns ----------------------------------------------------------------------------------------------------------


def patterns() -> Iterator[tuple[str, re.Pattern[Any]]]:
    import importlib
    import pkgutil

    import edge.http

    for found in pkgutil.iter_modules(edge.http.__path__):
        module = importlib.import_module(f"edge.http.{found.name}")
        for name, value in vars(module).items():
            if isinstance(value, re.Pattern):
                yield f"{found.name}.{name}", value


PATTERNS = dict(patterns())


@pytest.mark.parametrize("name", PATTERNS)
def test_no_pattern_can_run_away(name: str) -> None:
    pattern = PATTERNS[name]
    assert not ambiguous_loops(pattern.pattern, pattern.flags), f"{name}: a loop that matches one text in several ways"


@pytest.mark.parametrize(
    ("text", "runs"),
    [
        (rb"(?:a+)+", True), (rb"(?:a|a)*", True), (rb"(?:;\s*x(?:\s*=\s*y?)?\s*)*", True), (rb"(a*)*", True),
        (rb"(?:a|ab)*", False), (rb"(?:[^\",]|\"[^\"]*\")+", False), (rb"a*a*", False), (rb"(?:a++,)*+", False),
        (rb"(?:\s*;\s*[^\s=;,<>]+(?:\s*=\s*(?:\"(?:[^\"\\]|\\.)*\"|[^\s;,\"]*))?)*\s*,", True),
    ],
)  # fmt: skip
def test_the_search_for_ambiguity_finds_what_runs_away(text: bytes, runs: bool) -> None:
    assert ambiguous_loops(text, 0) is runs


def ambiguous_loops(pattern: bytes | str, flags: int) -> bool:
    """Whether some state of the pattern's automaton can come back to itself on one text in two ways: only then is a
    match exponential. Possessive and atomic parts never come back, so they count as their own first way."""
    from kit.automaton import Automaton

    return Automaton(pattern, flags).is_exponential()
