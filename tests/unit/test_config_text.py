"""Positions of keys: whatever `tomllib` reads, the scanner has seen, at the place where it stands."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edge.config.positions import Path, Position, Problem, dotted, nearest, scan, syntax_lines
from edge.config.sources import Sources, put_together

KEYS = st.sampled_from(["a", "b", "c-1", "404", "päth", "two words", "dot.ted", 'quo"te', "#no", "[x]", "= "])
SCALARS = st.sampled_from(
    [
        "1",
        "-2.5e3",
        "true",
        '"text"',
        "'raw \\ #'",
        '"#]},"',
        '""',
        "''",
        '"""a\n# no = 1\n"quoted"\n"""',
        "'''\n[x]\n'''",
        '""""""',
        '"""x"""""',
        '"\\"]"',
        "1979-05-27T07:32:00Z",
        "inf",
        '"""\\\n   joined"""',
        '"é\\u00e9"',
    ]
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=12
)
DOCUMENTS = st.dictionaries(KEYS, VALUES, max_size=5)


class Writer:
    """TOML text of generated data, in one of the styles that TOML allows, drawn for each table and list."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data

    def one_of(self, *choices: str) -> str:
        return self.data.draw(st.sampled_from(choices))

    def key(self, name: str) -> str:
        bare = name.isascii() and name.replace("-", "").isalnum()
        quoted = ['"' + name.replace('"', '\\"') + '"'] + ([] if "'" in name else [f"'{name}'"])
        return self.one_of(*quoted, *([name, name] if bare else []))

    def value(self, value: Any) -> str:
        if isinstance(value, str):
            return value
        if isinstance(value, list):
            gap = self.one_of("", " ", "\n  ", " # note ] = [\n")
            return f"[{gap}" + "".join(f"{self.value(item)}{gap},{gap}" for item in value) + "]"
        return "{ " + ", ".join(f"{self.key(name)} = {self.value(item)}" for name, item in value.items()) + " }"

    def table(self, table: dict[str, Any], prefix: tuple[str, ...] = ()) -> str:
        pairs, tables = [], []
        for name, value in table.items():
            style = "plain"
            if isinstance(value, dict):
                style = self.one_of("plain", "header", "dotted" if value else "plain")
            elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
                style = self.one_of("plain", "header")
            if style == "header":
                tables.append((name, value))
            elif style == "dotted":
                spelled = self.key(name)
                pairs += [f"{spelled} . {self.key(inner)} = {self.value(item)}" for inner, item in value.items()]
            else:
                pairs.append(
                    f"{self.one_of('', '  ')}{self.key(name)} = {self.value(value)}{self.one_of('', ' # = note')}"
                )
        text = "".join(f"{pair}{self.one_of('', ' ')}\n" for pair in pairs)
        for name, value in tables:
            path = (*prefix, name)
            spelled = self.one_of(".", " . ").join(self.key(part) for part in path)
            for element in value if isinstance(value, list) else [value]:
                left, right = ("[[", "]]") if isinstance(value, list) else ("[", "]")
                text += f"{self.one_of('', chr(10))}{left}{spelled}{right}\n{self.table(element, path)}"
        return text


def paths(value: Any, path: Path = ()) -> Iterator[Path]:
    """Every path of a parsed document."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in entries:
        yield (*path, name)
        yield from paths(item, (*path, name))


@settings(max_examples=200, deadline=None)
@given(DOCUMENTS, st.data())
def test_every_path_of_a_document_is_found_and_no_other(document: dict[str, Any], data: st.DataObject) -> None:
    text = Writer(data).table(document)
    parsed = tomllib.loads(text)
    found = scan(text)
    assert set(found.places) == set(paths(parsed))
    assert found.duplicates == []


@settings(max_examples=100, deadline=None)
@given(DOCUMENTS, st.data())
def test_a_position_is_where_the_name_is_written(document: dict[str, Any], data: st.DataObject) -> None:
    text = Writer(data).table(document)
    rows = text.split("\n")
    for path, place in scan(text).places.items():
        rest = rows[place.line - 1][place.column - 1 :]
        if isinstance(path[-1], str):
            assert rest.startswith((path[-1], f"'{path[-1]}'", '"' + path[-1].replace('"', '\\"') + '"'))
        else:
            assert rest[0] not in " #,]"


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab[]{}=.,#\"'\\\n \r1é", max_size=60))
def test_no_text_breaks_the_scanner_or_the_syntax_lines(text: str) -> None:
    found = scan(text)
    assert all(place.line >= 1 and place.column >= 1 for place in found.places.values())
    said = "nothing"
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        said = str(error)
    assert all(re.match(r"f:\d+:\d+ \S", line) for line in syntax_lines("f", text, said))


@settings(max_examples=50, deadline=None)
@given(DOCUMENTS, st.data())
def test_a_key_given_again_is_named_with_both_places(document: dict[str, Any], data: st.DataObject) -> None:
    text = Writer(data).table({"again": "1", **document})
    assume(not any(isinstance(value, dict) and "again" in value for value in document.values()))
    text = "again = 2\n" + text
    with pytest.raises(tomllib.TOMLDecodeError) as caught:
        tomllib.loads(text)
    (line,) = syntax_lines("f.toml", text, str(caught.value))
    place = scan(text).duplicates[0][1]
    assert line == f"f.toml:{place.line}:{place.column} again: given twice, first at 1:1"


def test_positions_of_the_forms_a_file_uses() -> None:
    text = """\
[pools.api]
balance = "hash"
hash = { on = "path" }
  [[pools.api.backends]]
  url = "http://a:1"
[[pools.api.backends]]
  weight = 0
[pools.api.timeouts]
connect.x = [ 1,
  2 ]
"""
    found = scan(text)
    assert found.find(("pools",)) == Position(1, 2)
    assert found.find(("pools", "api")) == Position(1, 8)
    assert found.find(("pools", "api", "hash", "on")) == Position(3, 10)
    assert found.find(("pools", "api", "backends", 0, "url")) == Position(5, 3)
    assert found.find(("pools", "api", "backends", 1, "weight")) == Position(7, 3)
    assert found.find(("pools", "api", "timeouts", "connect", "x", 1)) == Position(10, 3)


def test_what_the_text_does_not_hold_has_the_place_of_the_table_round_it() -> None:
    found = scan("\n[a]\nb = { c = 1 }\n")
    assert found.find(("a", "b", "d", "e")) == Position(3, 1)
    assert found.find(("a", "z")) == Position(2, 2)
    assert found.find(("z",)) == Position(1, 1)


def test_lines_are_in_the_order_of_the_text_and_each_once() -> None:
    text = "b = 1\na = 2\n"
    problems = [Problem(("a",), "two"), Problem(("b",), "one"), Problem(("a",), "two"), Problem((), "all")]
    assert put_together(Sources("f.toml", text)).lines(problems) == [
        "f.toml:1:1 all",
        "f.toml:1:1 b: one",
        "f.toml:2:1 a: two",
    ]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (("pools", "api", "backends", 2, "weight"), "pools.api.backends[2].weight"),
        (("routes", 0), "routes[0]"),
        (("pools", "a b", "url"), 'pools."a b".url'),
        (("x\n1:1 forged",), '"x\\n1:1 forged"'),
    ],
)
def test_paths_are_written_as_in_toml(path: Path, text: str) -> None:
    assert dotted(path) == text


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a = \n", 'f:1:5 not valid TOML: Invalid value (a text needs quotes: "web")'),
        ("x = 1\na = 'x", 'f:2:7 not valid TOML: Expected "\'"'),
        ("[t]\n[t]\n", "f:2:2 t: given twice, first at 1:2"),
        ("a = {b=1, b=2}\n", "f:1:11 a.b: given twice, first at 1:6"),
        ("[[r]]\nx = 1\n[[r]]\nx = 1\nx = 2\n", "f:5:1 r[1].x: given twice, first at 4:1"),
    ],
)
def test_a_text_that_is_no_toml_has_one_line_with_its_place(text: str, line: str) -> None:
    with pytest.raises(tomllib.TOMLDecodeError) as caught:
        tomllib.loads(text)
    assert syntax_lines("f", text, str(caught.value)) == [line]


def test_the_nearest_name() -> None:
    known = ["least-connections", "round-robin", "header_timeout"]
    assert nearest("roundrobin", known) == "round-robin"
    assert nearest("Header-Timeout", known) == "header_timeout"
    assert nearest("zzz", known) is None
