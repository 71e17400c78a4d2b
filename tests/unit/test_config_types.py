"""Durations, sizes, percentages, addresses, URLs and schedules: what is read, and that nothing else is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.config.routing import parse_location, parse_route_host, parse_statuses
from edge.config.schedule import parse_schedule
from edge.config.types import (
    Address,
    BackendUrl,
    UnixAddress,
    parse_address,
    parse_backend_url,
    parse_duration,
    parse_file_mode,
    parse_listen_address,
    parse_network,
    parse_percent,
    parse_size,
    parse_source,
    parse_timeout,
    parse_workers,
    shown,
)

UNITS = {"w": 604800, "d": 86400, "h": 3600, "m": 60, "s": 1, "ms": 0.001}
PARSERS: list[Callable[[object], object]] = [
    parse_duration,
    parse_size,
    parse_percent,
    parse_address,
    parse_listen_address,
    parse_backend_url,
    parse_network,
    parse_source,
    parse_file_mode,
    parse_workers,
    parse_schedule,
    parse_statuses,
    parse_route_host,
    parse_location,
]


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from(list(UNITS)), st.integers(0, 99), min_size=1))
def test_a_duration_is_the_sum_of_its_parts_from_large_to_small(parts: dict[str, int]) -> None:
    text = "".join(f"{parts[unit]}{unit}" for unit in UNITS if unit in parts)
    assert parse_duration(text) == pytest.approx(sum(count * UNITS[unit] for unit, count in parts.items()))


@settings(max_examples=100)
@given(st.integers(0, 10**6), st.sampled_from([("B", 1), ("kB", 1000), ("KiB", 1024), ("MiB", 2**20), ("GB", 10**9)]))
def test_a_size_is_its_number_of_units(number: int, unit: tuple[str, int]) -> None:
    assert parse_size(f"{number}{unit[0]}") == number * unit[1]


@settings(max_examples=200)
@given(
    st.text(max_size=12) | st.integers() | st.floats() | st.booleans() | st.none() | st.lists(st.integers(), max_size=2)
)
def test_any_value_is_read_or_refused_on_one_line(value: object) -> None:
    for parse in PARSERS:
        said = ""
        try:
            parse(value)
        except ValueError as error:
            said = str(error)
        assert said.isprintable()


@settings(max_examples=100)
@given(st.ip_addresses(), st.integers(0, 65535))
def test_an_address_is_read_as_it_is_written(host: object, port: int) -> None:
    address = Address(str(host), port)
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "bad", ["5", "", "s", "5 s", "-5s", "5s1m", "5s5s", "1e3s", "5S", "inf", 5, True, None, ["5s"], "99999w"]
)
def test_what_is_no_duration(bad: object) -> None:
    with pytest.raises(ValueError, match="must be"):
        parse_duration(bad)


def test_durations_and_timeouts() -> None:
    assert (parse_duration("1m30s"), parse_duration("250ms"), parse_duration("0.5s"), parse_duration("0s")) == (
        90,
        0.25,
        0.5,
        0,
    )
    with pytest.raises(ValueError, match="more than zero"):
        parse_timeout("0s")


@pytest.mark.parametrize("bad", ["64", "64 kib", "64kiB", "KiB", "-1B", "1iB", 64, "1.B", "99999999999999TB"])
def test_what_is_no_size(bad: object) -> None:
    with pytest.raises(ValueError, match="must be a size"):
        parse_size(bad)


@pytest.mark.parametrize("bad", ["1025TiB", "999999999999TiB", "999999999999.9TiB"])
def test_what_no_machine_can_count_is_no_size(bad: str) -> None:
    with pytest.raises(ValueError, match="at most 1024 TiB"):
        parse_size(bad)


def test_sizes_and_percentages() -> None:
    assert (parse_size("0"), parse_size("1.5GiB"), parse_size("256 MiB")) == (0, 1610612736, 268435456)
    assert (parse_percent("0%"), parse_percent("20%"), parse_percent("12.5 %"), parse_percent("100%")) == (
        0,
        0.2,
        0.125,
        1,
    )
    for bad in ("101%", "100.1%", "20", "-1%", 0.2):
        with pytest.raises(ValueError):
            parse_percent(bad)


@pytest.mark.parametrize(
    "bad",
    [
        "8080",
        ":8080",
        "0.0.0.0",
        "0.0.0.0:65536",
        "300.1.1.1:80",
        "[::]",
        "::1:80",
        "[nope]:80",
        "a b:80",
        "host:",
        "[::]:8x",
        "a:1:2",
    ],
)
def test_what_is_no_address(bad: str) -> None:
    with pytest.raises(ValueError, match="must be an address"):
        parse_address(bad)


def test_backend_urls() -> None:
    assert parse_backend_url("http://Origin.example:8080") == BackendUrl("http", "origin.example", 8080)
    assert parse_backend_url("https://origin") == BackendUrl("https", "origin", 443)
    assert parse_backend_url("HTTP://[::1]") == BackendUrl("http", "::1", 80)
    assert str(parse_backend_url("http://[::1]:81")) == "http://[::1]:81"
    unix = parse_backend_url("unix:/run/app+1/web.sock")
    assert (unix, str(unix)) == (BackendUrl("unix", "/run/app+1/web.sock", 0), "unix:/run/app+1/web.sock")
    assert (unix.authority, unix.name) == ("localhost", "unix:run-app-1-web.sock")


def test_addresses_to_listen_on() -> None:
    assert parse_listen_address("[::]:8080") == Address("::", 8080)
    assert parse_listen_address("unix:8080") == Address("unix", 8080), "a host may have that name"
    unix = parse_listen_address("unix:/run/edge.sock")
    assert (unix, str(unix)) == (UnixAddress("/run/edge.sock"), "unix:/run/edge.sock")
    with pytest.raises(ValueError, match="must be an address"):
        parse_address("unix:/run/edge.sock")


@pytest.mark.parametrize(
    "bad", ["unix:", "unix:run/a.sock", "unix:/run/", "unix:/a\n", "unix:/" + "a" * 100, "unix://h/a\0"]
)
def test_what_is_no_socket(bad: str) -> None:
    for parse in (parse_listen_address, parse_backend_url):
        with pytest.raises(ValueError, match="must be a"):
            parse(bad)


def test_modes_and_sources() -> None:
    assert [parse_file_mode(mode) for mode in ("0660", "600", "0666")] == [0o660, 0o600, 0o666]
    for bad in ("", "rw", "0888", "0777", "01660", 660, True):
        with pytest.raises(ValueError, match="must be a mode"):
            parse_file_mode(bad)
    assert parse_source("unix") == "unix"
    assert str(parse_source("10.0.0.0/8")) == "10.0.0.0/8"
    with pytest.raises(ValueError, match="must be a network"):
        parse_source("unix:")


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("http://a/", "without path"),
        ("http://a?x", "without path"),
        ("http://a#x", "without path"),
        ("ftp://a", "must be a URL"),
        ("a:80", "must be a URL"),
        ("http://", "with a host"),
        ("http://:80", "with a host"),
        ("http://a:0", "with a host"),
        ("http://a:99999", "with a host"),
        ("http://10.0.0.256", "with a host"),
        ("http://a_b c", "with a host"),
        ("http://u:p@a", "without user name"),
    ],
)
def test_what_is_no_backend_url(bad: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_backend_url(bad)


def test_an_error_never_shows_a_password_and_never_forges_a_line() -> None:
    with pytest.raises(ValueError) as caught:
        parse_backend_url("http://user:pa/ss@host/x")
    assert "pa/ss" not in str(caught.value)
    assert shown("a\nconfig.toml:1:1 x\x1b[2J") == '"a\\nconfig.toml:1:1 x\\x1b[2J"'
    assert len(shown("x" * 1000)) < 70


@pytest.mark.parametrize(
    "line",
    [
        "0 3 * * 0",
        "0 3 * * 1-6",
        "*/5 * * * *",
        "0,30 9-17/2 1 jan,jul mon-fri",
        "0 0 29 2 *",
        "5/15 * * * 7",
        "0 0 31 2 1",
    ],
)
def test_cron_lines(line: str) -> None:
    schedule = parse_schedule(line)
    assert (schedule.cron, schedule.interval) == (line, None)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("60 * * * *", "minute"),
        ("* 24 * * *", "hour"),
        ("* * 0 * *", "day of month"),
        ("* * * 13 *", "month"),
        ("* * * * 8", "day of week"),
        ("5-1 * * * *", "minute"),
        ("*/0 * * * *", "minute"),
        (", * * * *", "minute"),
        ("* * * foo *", "month"),
        ("* * * *", "got 4 fields"),
        ("* * * * * *", "got 6 fields"),
        ("0 0 30 2 *", "never comes due"),
        ("0 0 31 4,6 *", "never comes due"),
        ("9s", "at least 10s"),
        ("daily", "cron line"),
    ],
)
def test_what_is_no_schedule(line: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_schedule(line)


def test_intervals() -> None:
    assert parse_schedule("15m").interval == 900


def test_hosts_of_routes() -> None:
    assert [parse_route_host(host) for host in ("*", "*.Example.com", "a.b:8443", "[::1]", "10.0.0.1")] == [
        *("*", "*.example.com", "a.b:8443", "[::1]", "10.0.0.1")
    ]
    for bad in ("", "*.", "a.*.b", "*a", "http://a", "a/b", "a b", "*.*", "bücher.de", 5):
        with pytest.raises(ValueError, match="must be a host"):
            parse_route_host(bad)


def test_statuses() -> None:
    assert parse_statuses([200, "301-303"]) == {200, 301, 302, 303}
    for bad in ([], [99], ["300-200"], [200.0], [True], "200"):
        with pytest.raises(ValueError):
            parse_statuses(bad)
