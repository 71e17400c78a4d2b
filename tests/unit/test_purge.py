"""Purges: what operators may say, whom a purge touches, and that nothing forgotten comes back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.cache import purge as module
from edge.cache.purge import MAX_LOG_BYTES, Purge, PurgeKind, PurgeLog, PurgeState, base_of, host_and_path
from edge.cache.purge_request import parse_purge
from edge.errors import BadRequest

KEY = b"http://x/a/b?q=1"
SEGMENTS = st.lists(st.sampled_from(["a", "b", "ab", ""]), max_size=4)


def verdict(purge_log: PurgeLog, seq: int, key: bytes = KEY, *tags: bytes) -> PurgeState:
    return purge_log.admit(seq, key, tags).verdict


@given(path=SEGMENTS, prefix=SEGMENTS, host=st.sampled_from(["", "x", "y"]))
def test_a_prefix_is_whole_segments(path: list[str], prefix: list[str], host: str) -> None:
    purge_log = PurgeLog()
    seq = purge_log.now_seq()
    asked = parse_purge({"prefix": host + "/" + "/".join(prefix)})
    purge_log.record(asked, 0)
    wanted = asked.value.decode().removeprefix(host).split("/")[1:]
    segments = [each for each in path if each]  # empty ones are joined, as routes join them
    touched = host in ("", "x") and segments[: len(wanted)] == wanted
    key = ("http://x/" + "/".join(path)).encode()
    assert verdict(purge_log, seq, key) is (PurgeState.GONE if touched else PurgeState.KEPT)


@pytest.mark.parametrize(
    ("asked", "touched", "spared"),
    [
        ({"url": "http://x/a/b?q=1"}, [KEY, KEY + b" h:v=1:2"], [b"http://x/a/b", b"https://x/a/b?q=1"]),
        ({"url": "HTTP://X:80"}, [b"http://x/"], [KEY]),
        ({"prefix": "/a"}, [KEY, b"http://y/a", b"http://y/a?z=/"], [b"http://x/ab", b"http://x/?/a"]),
        ({"prefix": "/a/"}, [KEY, b"http://y/a"], [b"http://x/ab"]),
        ({"prefix": "https://X/a"}, [KEY, b"https://x/a"], [b"http://y/a"]),
        ({"prefix": "x"}, [KEY, b"http://x/"], [b"http://xx/", b"http://y/x"]),
        ({"host": "X"}, [KEY, b"https://x/", b"http://x:80/"], [b"http://x:81/", b"http://x.y/"]),
        ({"host": "x:81"}, [b"http://x:81/"], [KEY]),
        ({"all": True}, [KEY, b"anything"], []),
        ({"kind": "all"}, [KEY], []),
        ({"kind": "host", "value": "x"}, [KEY], [b"http://y/"]),
    ],
)
def test_whom_each_kind_touches(asked: object, touched: list[bytes], spared: list[bytes]) -> None:
    purge_log = PurgeLog()
    before = purge_log.now_seq()
    purge_log.record(parse_purge(asked), 5.0)
    assert [verdict(purge_log, before, key) for key in touched] == [PurgeState.GONE] * len(touched)
    assert [verdict(purge_log, before, key) for key in spared] == [PurgeState.KEPT] * len(spared)
    assert [verdict(purge_log, purge_log.now_seq(), key) for key in touched] == [PurgeState.KEPT] * len(touched)


def test_tags_are_exact_and_only_touch_fills_that_started_before() -> None:
    purge_log = PurgeLog()
    before = purge_log.now_seq()
    purge_log.record(parse_purge({"tag": "news"}), 0)
    assert verdict(purge_log, before, KEY, b"other", b"news") is PurgeState.GONE
    assert verdict(purge_log, before, KEY, b"newsletter") is PurgeState.KEPT
    assert verdict(purge_log, purge_log.now_seq(), KEY, b"news") is PurgeState.KEPT


def test_a_soft_purge_says_since_when_and_a_hard_one_wins() -> None:
    purge_log = PurgeLog()
    before = purge_log.now_seq()
    purge_log.record(parse_purge({"host": "x", "soft": True}), 7.0)
    assert purge_log.admit(before, KEY, ()) == (PurgeState.STALE, 7.0, False)
    purge_log.record(parse_purge({"tag": "t"}), 8.0)
    assert verdict(purge_log, before, KEY, b"t") is PurgeState.GONE
    assert verdict(purge_log, before, KEY) is PurgeState.STALE
    between = purge_log.now_seq()
    purge_log.record(parse_purge({"host": "x"}), 9.0)
    purge_log.record(parse_purge({"host": "x", "soft": True}), 10.0)
    assert verdict(purge_log, between, KEY) is PurgeState.GONE


def test_only_stamps_make_a_stored_response_be_looked_at_again() -> None:
    purge_log = PurgeLog()
    purge_log.record(Purge(PurgeKind.URL, KEY), 0)
    purge_log.record(Purge(PurgeKind.TAG, b"t"), 0)
    assert purge_log.last_stamp == 0
    purge_log.record(Purge(PurgeKind.HOST, b"y"), 0)
    assert purge_log.last_stamp == purge_log.now_seq()


PURGES = st.builds(
    Purge,
    st.sampled_from(PurgeKind),
    st.sampled_from([b"http://x/a", b"http://x/b", b"x", b"/a", b"x/b", b"", b"t1", b"t2"]),
    st.booleans(),
)
KEYS = [b"http://x/a", b"http://x/b", b"http://y/a/c", b"http://y/"]


@given(purges=st.lists(PURGES, max_size=30), limit=st.integers(1, 5))
@settings(max_examples=150, deadline=None)
def test_forgetting_and_a_restart_never_bring_a_response_back(purges: list[Purge], limit: int) -> None:
    """Against the same history with nothing forgotten, a bounded one purges the same or more, before and after JSON."""
    full, small = PurgeLog(), PurgeLog()
    seqs = [full.now_seq()]
    log, stamps = module.MAX_LOG, module.MAX_STAMPS
    for number, purge in enumerate(purges):
        full.record(purge, float(number))
        module.MAX_LOG = module.MAX_STAMPS = limit
        try:
            small.record(purge, float(number))
        finally:
            module.MAX_LOG, module.MAX_STAMPS = log, stamps
        seqs.append(full.now_seq())
    assert len(small._log) <= limit
    assert len(small._stamps) <= limit
    restored = PurgeLog.from_dict(json.loads(json.dumps(small.to_dict())))
    order = [PurgeState.KEPT, PurgeState.STALE, PurgeState.GONE]
    for seq in seqs:
        for key in KEYS:
            for tags in ([], [b"t1"], [b"t1", b"t2"]):
                wanted = full.admit(seq, key, tags)
                got = small.admit(seq, key, tags)
                assert order.index(got.verdict) >= order.index(wanted.verdict)
                assert restored.admit(seq, key, tags) == got
                assert restored.stamped(seq, key) == small.stamped(seq, key)
    assert all(small.admit(seqs[-1], key, [b"t1"]).verdict is PurgeState.KEPT for key in KEYS)


def test_journal_numbers_ascend_past_local_ones() -> None:
    purge_log = PurgeLog()
    first = purge_log.record(Purge(PurgeKind.URL, KEY), 0, number=7)
    local = purge_log.record(Purge(PurgeKind.URL, KEY), 0)
    second = purge_log.record(Purge(PurgeKind.URL, KEY), 0, number=8)
    again = purge_log.record(Purge(PurgeKind.URL, KEY), 0, number=8)
    assert first < local < second < again
    assert (first >> 32, second >> 32) == (7, 8)


@given(PURGES)
def test_a_purge_survives_the_journal(purge: Purge) -> None:
    assert Purge.from_dict(json.loads(json.dumps(purge.to_dict()))) == purge


def test_keys_and_their_parts() -> None:
    assert base_of(b"http://x/a?b h:v=1:2") == b"http://x/a?b"
    assert host_and_path(b"https://x:443/a?/b h:v=4:http") == (b"x", b"/a")
    assert host_and_path(b"http://x:443/") == (b"x:443", b"/")
    assert host_and_path(b"junk") == (b"", b"")


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (None, "JSON object"),
        ([], "JSON object"),
        ({}, "exactly one"),
        ({"soft": True}, "exactly one"),
        ({"url": "http://x/", "tag": "t"}, "exactly one"),
        ({"urls": "http://x/"}, "unknown kind 'urls'"),
        ({"kind": "regex", "value": "."}, "unknown kind 'regex'"),
        ({"kind": ["url"], "value": "."}, "unknown kind"),
        ({"kind": "url", "value": "http://x/", "hard": True}, "unknown field 'hard'"),
        ({"url": "x/a"}, "http(s)://host/path"),
        ({"url": "ftp://x/a"}, "http(s)://host/path"),
        ({"url": "http://x/a#b"}, "fragment"),
        ({"url": "http:///a"}, "not a host"),
        ({"url": "http://u@x/a"}, "not a host"),
        ({"url": "http://x/ü"}, "percent-encoded"),
        ({"url": "http://x/a b"}, "percent-encoded"),
        ({"url": "http://x/a\n"}, "percent-encoded"),
        ({"url": 7}, "must be a text"),
        ({"url": ""}, "must be a text"),
        ({"url": "http://x/" + "a" * 9000}, "longer than"),
        ({"host": "x/a"}, "not a host"),
        ({"host": "x:y"}, "not a host"),
        ({"prefix": "/a?b"}, "without query"),
        ({"prefix": "http://x/a#b"}, "prefix"),
        ({"all": False}, "all must be true"),
        ({"all": "yes"}, "all must be true"),
        ({"tag": "t", "soft": "yes"}, "soft must be"),
    ],
)
def test_a_wrong_purge_is_refused_with_one_clear_line(asked: object, words: str) -> None:
    with pytest.raises(BadRequest) as refused:
        parse_purge(asked)
    assert words in refused.value.detail
    assert "\n" not in refused.value.detail
    assert len(refused.value.detail) < 200


def test_a_group_name_may_have_spaces() -> None:
    assert parse_purge({"tag": "https://x my group"}).value == b"https://x my group"


def test_the_log_is_bounded_in_bytes_and_forgets_towards_more_purged() -> None:
    purge_log = PurgeLog()
    began = purge_log.now_seq()
    for number in range(2000):
        purge_log.record(Purge(PurgeKind.URL, b"http://x/%d" % number + b"y" * 8000), 0)
    held = sum(len(value) for _, value in purge_log._log)
    assert held <= MAX_LOG_BYTES
    assert purge_log.floor > began
    assert purge_log.admit(began, b"http://x/other", ()).verdict is PurgeState.GONE  # it may have been named
    again = PurgeLog.from_dict(purge_log.to_dict())
    assert (again.to_dict(), again._log_bytes) == (purge_log.to_dict(), purge_log._log_bytes)
    purge_log.record(Purge(PurgeKind.ALL), 0)
    assert purge_log._log_bytes == 0
