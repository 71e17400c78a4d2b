"""Placeholders and header rules over any bytes: never a line more than the operator wrote."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from edge.config.rule_values import PLACEHOLDERS
from edge.dataplane.rules.answers import Redirect
from edge.dataplane.rules.asked import Imagined
from edge.dataplane.rules.headers import HeaderEdit, without
from edge.dataplane.rules.template import Template
from edge.http.field_line import FieldLine
from edge.http.grammar import RequestHeaders
from edge.http.message import Fields

ALL = [f"{{{name}}}" for name in PLACEHOLDERS] + ["{header:X-A}", "{cookie:a}", "{query:a}"]
LINES = re.compile(rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+: [^\r\n\0]*\r\n)*")


def asked(raw: bytes, target: bytes = b"/") -> Imagined:
    """A request of which everything that a client chooses is these bytes, whatever a grammar would have said."""
    block = RequestHeaders([FieldLine(b"x-a", (b"X-A", raw), 0), FieldLine(b"cookie", (b"Cookie", b"a=" + raw), 0)])
    found = Imagined(raw, raw, raw, target + b"?a=" + raw, block)
    found.identity = raw
    found.client = found.place = raw.decode("latin-1").encode("ascii", "replace").decode()
    return found


@given(st.binary(max_size=40), st.sampled_from(ALL), st.binary(max_size=10))
def test_no_placeholder_injects_a_line(raw: bytes, placeholder: str, region: bytes) -> None:
    edit = HeaderEdit({"X-Set": f"a {placeholder} b"}, {"X-Add": placeholder}, ())
    lines = edit.lines(asked(raw), region)
    assert LINES.fullmatch(lines), lines
    assert lines.count(b"\r\n") in (1, 2)
    assert not any(byte < 0x20 or byte == 0x7F for byte in lines.replace(b"\r\n", b""))


@given(st.binary(max_size=30).map(lambda raw: b"/" + raw))
def test_a_path_never_leads_to_another_host(target: bytes) -> None:
    for to in ("{uri}", "{path}", "/{path}", "{path}/"):
        found = Redirect(to, 308).location(asked(b"x", target))
        if found is not None:
            assert re.match(rb"/(?![/\\])", found), found


NAMES = st.sampled_from([b"server", b"Server", b"X-A", b"x-a", b"x", b"a"])
VALUES = st.sampled_from([b"", b"x: y", b"server: 1", b"1", b"a, b"])


@given(st.lists(st.tuples(NAMES, VALUES), max_size=6), st.sets(st.sampled_from([b"server", b"x-a", b"x"])))
def test_only_lines_of_the_names_are_left_out(lines: list[tuple[bytes, bytes]], names: set[bytes]) -> None:
    head = b"HTTP/1.1 200 OK\r\n"
    for first in (b"", head):
        kept = first + Fields([line for line in lines if line[0].lower() not in names]).encode()
        assert without(first + Fields(lines).encode(), sorted(names)) == kept


def test_a_brace_is_written_twice_and_json_passes() -> None:
    text = '{"group":"a","max_age":1} {{host} {host}'
    assert Template(text).fill(asked(b"h")) == b'{"group":"a","max_age":1} {host} h'


def test_a_value_that_is_empty_makes_no_line() -> None:
    edit = HeaderEdit({"X-User": "{user}", "X-Fixed": ""}, {}, ())
    empty = asked(b"")
    assert edit.lines(empty) == b"X-Fixed: \r\n"
