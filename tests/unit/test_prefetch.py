"""Prefetch: what a page names, what comes next in a sequence, when the gate is shut, what a warm list may hold."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.cache import prefetch
from edge.cache.prefetch import (
    MAX_PIECES,
    MAX_TARGETS,
    Gate,
    GateRules,
    PrefetchRefusal,
    Sequence,
    link_targets,
    parse_warm_list,
)
from edge.errors import BadRequest


def targets(*values: bytes, target: bytes = b"/dir/page?q=1") -> list[bytes]:
    return link_targets(values, b"https", b"www.example.com", target)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (b"</a.css>; rel=preload; as=style", [b"/a.css"]),
        (b'</a.css>;rel="preload"', [b"/a.css"]),
        (b"</a>; rel=prefetch, </b?x=1,2>; as=script; rel=preload", [b"/a", b"/b?x=1,2"]),
        (b'</a>; title="x, <y>; rel=preload"; rel=next, </b>; rel="next PREFETCH"', [b"/b"]),
        (b'</a>; title="\\", "; rel=preload', [b"/a"]),
        (b"</a>; rel=preload, </a>; rel=prefetch", [b"/a"]),
        (b"</a>; rel=next; rel=preload", []),
        (b"</a>; rel=preloaded", []),
        (b"</a>", []),
        (b"</a>; rel=preload; anchor=/other", []),
        (b"</a>; rel=preload; crossorigin=use-credentials", []),
        (b"</a>; rel=preload; crossorigin", [b"/a"]),
        (b"<b.js>; rel=preload", [b"/dir/b.js"]),
        (b"<../b.js>; rel=preload", [b"/b.js"]),
        (b"<../../../b/./c/..>; rel=preload", [b"/b/"]),
        (b"<?q=2>; rel=preload", [b"/dir/page?q=2"]),
        (b"</a#top>; rel=preload", [b"/a"]),
        (b"<#top>; rel=preload", []),
        (b"</dir/page?q=1>; rel=preload", []),
        (b"<https://www.example.com/a>; rel=preload", [b"/a"]),
        (b"<HTTPS://WWW.example.COM>; rel=preload", [b"/"]),
        (b"<//www.example.com/a>; rel=preload", [b"/a"]),
        (b"<//cdn.example.com/a>; rel=preload", []),
        (b"<http://www.example.com/a>; rel=preload", []),
        (b"<data:text/plain,a>; rel=preload", []),
        (b"</a b>; rel=preload", []),
        (b"</a\x00>; rel=preload", []),
        (b"junk", []),
        (b"", []),
    ],
)
def test_link_values(value: bytes, wanted: list[bytes]) -> None:
    assert targets(value) == wanted


@pytest.mark.parametrize(
    "value",
    [
        b"<a>" + b"; a =  " * 60 + b'"',
        b"<a>" + b';a="' * 4000,
        b"<a>" + b"; a" * 9000 + b"<",
        b"<" * 30000,
        b"<>" * 15000,
        b'<a>;b=\\"' * 4000,
        b"<" + b"/.." * 9000 + b">; rel=preload",
    ],
    ids=["ambiguous", "unclosed", "many", "opening", "empty", "escaped", "long"],
)
def test_no_value_takes_long(value: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of these was exponential, or quadratic: what is counted are the pieces that are read."""
    read = []

    class Counting:
        def match(self, text: bytes, at: int) -> re.Match[bytes] | None:
            read.append(at)
            return prefetch_parameter.match(text, at)

    prefetch_parameter = prefetch._PARAMETER
    monkeypatch.setattr(prefetch, "_PARAMETER", Counting())
    assert targets(value + b", </b>; rel=preload") in ([], [b"/b"])
    assert len(read) <= 2 * MAX_PIECES and read == sorted(read)


def test_a_pattern_has_one_star_between_two_slashes() -> None:
    assert Sequence("/*/a*/seg-{n}.ts").next(b"/x/ay/seg-1.ts") == b"/x/ay/seg-2.ts"
    with pytest.raises(ValueError, match="at most one"):
        Sequence("/*-*-{n}.ts")


def test_a_page_cannot_name_any_number_of_targets() -> None:
    assert len(targets(*(b"</%d>; rel=preload" % n for n in range(500)))) == MAX_TARGETS


@given(st.binary(max_size=200))
def test_whatever_a_link_value_holds_a_target_is_one_clean_path(value: bytes) -> None:
    for target in targets(value, b"<" + value + b">; rel=preload"):
        assert target.startswith(b"/")
        assert all(0x21 <= octet <= 0x7E for octet in target)
        assert b"#" not in target


@pytest.mark.parametrize(
    ("pattern", "target", "wanted"),
    [
        ("/seg-{n}.ts", b"/seg-7.ts", b"/seg-8.ts"),
        ("/seg-{n}.ts", b"/seg-009.ts", b"/seg-010.ts"),
        ("/seg-{n}.ts", b"/seg-99.ts", b"/seg-100.ts"),
        ("/*/seg-{n}.ts", b"/live/seg-1.ts", b"/live/seg-2.ts"),
        ("/*/seg-{n}.ts", b"/a/b/seg-1.ts", None),
        ("/seg-{n}.ts", b"/seg-.ts", None),
        ("/seg-{n}.ts", b"/seg-1xts", None),
        ("/seg-{n}.ts", b"/seg-1.ts?x", None),
        ("/seg-{n}.ts", b"/seg-1.ts\n", None),
        ("/seg-{n}.ts", b"/seg-" + b"1" * 13 + b".ts", None),
        ("/p?page={n}", b"/p?page=1", b"/p?page=2"),
    ],
)
def test_next_in_sequence(pattern: str, target: bytes, wanted: bytes | None) -> None:
    assert Sequence(pattern).next(target) == wanted


@pytest.mark.parametrize("pattern", ["/seg.ts", "/{n}/{n}", "seg-{n}.ts", ""])
def test_a_pattern_needs_one_number(pattern: str) -> None:
    with pytest.raises(ValueError, match="once"):
        Sequence(pattern)


def busy_gate(rules: GateRules) -> Gate:
    """A gate with so many client requests behind it that the share is no matter."""
    gate = Gate(rules)
    gate.origin_request(0, 10_000)
    return gate


def test_the_gate_names_what_shuts_it() -> None:
    gate = busy_gate(GateRules(concurrency=2))
    assert gate.may_start(0, 0.0) is None
    assert gate.may_start(0, 0.0, failing_over=True) is PrefetchRefusal.FAILOVER
    assert gate.may_start(0, 0.71) is PrefetchRefusal.LOAD
    gate.started(0)
    gate.started(0)
    assert gate.may_start(0, 0.0) is PrefetchRefusal.BUSY
    gate.ended(stored=True)
    assert gate.may_start(0, 0.0) is None
    assert Gate(GateRules()).may_start(0, 0.0) is PrefetchRefusal.SHARE
    refused = (PrefetchRefusal.BUSY, PrefetchRefusal.LOAD, PrefetchRefusal.FAILOVER)
    assert gate.refused == {why: int(why in refused) for why in PrefetchRefusal}


@given(st.lists(st.sampled_from(["client", "prefetch", "second"]), max_size=300), st.sampled_from([0.05, 0.1, 0.5]))
def test_the_share_is_never_passed(events: list[str], share: float) -> None:
    gate, now, sent = Gate(GateRules(share=share)), 0.0, []
    for event in events:
        if event == "client":
            gate.origin_request(now)
            sent.append((now, False))
        elif event == "second":
            now += 1
        elif gate.may_start(now, 0.0) is None:
            gate.started(now)
            gate.ended(stored=True)
            sent.append((now, True))
            recent = [own for when, own in sent if when > now - 60]
            assert sum(recent) <= share * len(recent)


def test_requests_of_long_ago_give_no_share() -> None:
    gate = busy_gate(GateRules())
    assert gate.may_start(59, 0.0) is None
    assert gate.may_start(60, 0.0) is PrefetchRefusal.SHARE


def test_low_precision_switches_off_says_why_and_is_judged_afresh_after_the_rest() -> None:
    gate = busy_gate(GateRules(sample=10, floor=0.3, rest_s=100, window_s=10_000))
    for _ in range(2):
        gate.used()
    for _ in range(7):
        gate.wasted()
    assert gate.precision is None
    assert gate.may_start(1, 0.0) is None
    gate.wasted()
    assert gate.may_start(1, 0.0) is PrefetchRefusal.PRECISION
    assert gate.why_off(1) == "precision below 30%; off for 100 s more"
    assert gate.may_start(101, 0.0) is None
    assert gate.why_off(101) is None
    assert gate.precision is None


def test_good_precision_keeps_it_on() -> None:
    gate = busy_gate(GateRules(sample=10, floor=0.3))
    for _ in range(40):
        gate.used()
        gate.wasted()
    assert gate.precision == 0.5
    assert not gate.judge(1)


def test_a_prefetch_that_stored_nothing_counts_against_precision() -> None:
    gate = busy_gate(GateRules(sample=1, floor=0.5))
    gate.started(0)
    gate.ended(stored=False)
    assert gate.may_start(0, 0.0) is PrefetchRefusal.PRECISION


def test_warm_lists() -> None:
    wanted = ["http://x/a", "https://y:8443/b?c=d"]
    assert parse_warm_list("# comment\nhttp://x/a\n\n https://y:8443/b?c=d \r\nhttp://x/a\n") == wanted
    assert parse_warm_list('["http://x/a",\n "https://y:8443/b?c=d"]') == wanted


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("http://x/a\n/b\nhttp://x/c", "warm list: line 2: not an http(s) URL: '/b'"),
        ("http://x/a b", "warm list: line 1: not an http(s) URL"),
        ("http://x/a#b", "warm list: line 1: not an http(s) URL"),
        ('["http://x/a",\n]', "warm list: line 2: not JSON"),
        ('["http://x/a", 7]', "warm list: entry 2: not an http(s) URL: '7'"),
        ("[" * 100_000, "warm list: "),
        ("", "warm list: no URL in it"),
        ("# only\n", "warm list: no URL in it"),
        ("[]", "warm list: no URL in it"),
    ],
)
def test_a_wrong_warm_list_says_where(text: str, line: str) -> None:
    with pytest.raises(BadRequest) as refused:
        parse_warm_list(text)
    assert refused.value.detail.startswith(line)


def test_all_wrong_lines_are_told_at_once_up_to_a_limit() -> None:
    with pytest.raises(BadRequest) as refused:
        parse_warm_list("bad\n" * 30)
    lines = refused.value.detail.split("\n")
    assert len(lines) == 21
    assert lines[-1] == "warm list: and 10 more"
