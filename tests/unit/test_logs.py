"""The access log: whole lines, none lost silently, none forged."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.waiting import WAIT_S

from edge.adapters.background_writer import HELD_BYTES
from edge.adapters.logs import FLUSH_BYTES, AccessLog
from edge.dataplane.core.downstream import logged
from edge.dataplane.core.exchange import Exchange
from edge.dataplane.core.limits import WorkerLimits
from edge.dataplane.core.route import Route
from edge.dataplane.worker.access_line import json_line
from edge.dataplane.worker.worker import Worker
from edge.http.forwarding import Networks
from edge.http.grammar import REQUEST_LINE, Limits, request_block
from edge.http.text import quote, quote_text

TARGETS = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="#"), min_size=1, max_size=20
)


def test_lines_are_kept_until_a_flush_and_then_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "access.log"
    log = AccessLog(str(path))
    log.add(b"one\n")
    assert path.read_bytes() == b""
    log.flush()
    assert log.settle() and path.read_bytes() == b"one\n"
    log.add(b"x" * FLUSH_BYTES + b"\n")
    assert log.settle() and path.stat().st_size == FLUSH_BYTES + 5, "much is written at once, not kept"
    log.add(b"last\n")
    log.close()
    assert path.read_bytes().endswith(b"last\n")
    assert not log.enabled


def test_reopen_lets_a_renamed_file_go_and_loses_nothing(tmp_path: Path) -> None:
    path, old = tmp_path / "access.log", tmp_path / "access.log.1"
    log = AccessLog(str(path))
    log.add(b"before\n")
    path.rename(old)
    log.reopen()
    log.add(b"after\n")
    log.close()
    assert (old.read_bytes(), path.read_bytes()) == (b"before\n", b"after\n")


def test_what_cannot_be_written_is_counted_and_never_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = AccessLog(str(tmp_path / "access.log"))
    written: list[bytes] = []
    write = os.write

    def full(fd: int, data: bytes) -> int:
        if written:
            raise OSError(28, "No space left on device")
        written.append(bytes(data[:2]))
        return write(fd, data[:2])

    monkeypatch.setattr(os, "write", full)
    log.add(b"one\n")
    log.add(b"two\n")
    log.flush()
    assert log.settle() and (log.lost, written) == (2, [b"on"])
    monkeypatch.undo()
    log.add(b"three\n")
    log.close()
    assert (tmp_path / "access.log").read_bytes() == b"on\nthree\n", "the line that was cut is ended first"


def test_its_end_leaves_neither_a_thread_nor_a_file_open(tmp_path: Path) -> None:
    log = AccessLog(str(tmp_path / "access.log"))
    log.add(b"one\n")
    log.close()
    log.close()
    assert log._writer is not None and log._writer._thread is not None
    log._writer._thread.join(WAIT_S)
    assert not log._writer._thread.is_alive()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(log._writer.fd)
    log.add(b"two\n")
    log.flush()
    assert (tmp_path / "access.log").read_bytes() == b"one\n" and log.lost == 1


def test_a_reader_that_does_not_read_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    there, here = os.pipe()
    monkeypatch.setattr("edge.adapters.logs.sys.stdout", SimpleNamespace(fileno=lambda: here))
    log = AccessLog("stdout")
    line = b"x" * (FLUSH_BYTES - 1) + b"\n"
    for _ in range(HELD_BYTES // FLUSH_BYTES + 10):
        log.add(line)
    assert log.lost > 0
    os.close(there)  # the blocked write ends, and what is left is counted
    assert log._writer is not None and log._writer.settle(5.0)
    assert log.lost >= HELD_BYTES // FLUSH_BYTES
    os.close(here)


def test_standard_error_may_be_gone_or_full() -> None:
    """What is printed neither raises nor waits; in a process of its own, for it takes the real descriptor."""
    code = (
        "import sys, os\n"
        "from edge.adapters.background_writer import QuietStream\n"
        "there, here = os.pipe()\nos.dup2(here, 2)\n"
        "stream = sys.stderr = QuietStream(2)\n"
        "for _ in range(200): print('x' * 100_000, file=sys.stderr)\n"
        "assert stream.writer.lost > 0\n"
        "os.close(there)\n"
        "print('to nobody', file=sys.stderr)\n"
        "os._exit(7)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=WAIT_S, check=False)
    assert done.returncode == 7


def test_off_writes_nothing() -> None:
    log = AccessLog("off")
    assert not log.enabled
    log.reopen()
    log.flush()
    log.close()


def test_the_stamps(tmp_path: Path) -> None:
    log = AccessLog("off")
    log.refresh(0.0 + 86400 * 365)
    assert (log.stamp, log.stamp_combined) == (b"1971-01-01T00:00:00Z", b"01/Jan/1971:00:00:00 +0000")


@given(st.binary(max_size=40))
@settings(max_examples=200)
def test_quoted_bytes_are_the_inside_of_a_json_string(raw: bytes) -> None:
    quoted = quote(raw)
    assert orjson.loads(b'"' + quoted + b'"') == raw.decode("latin-1")
    assert not any(ord(each) < 32 or 127 <= ord(each) < 160 for each in quoted.decode())


def test_a_routes_name_is_no_part_of_the_syntax() -> None:
    name = 'say "hi" \\ \u0085'
    assert orjson.loads(b'"' + quote_text(name) + b'"') == name


def exchange(target: bytes, lines: bytes, combined: bool) -> tuple[Worker, Exchange]:
    worker = Worker(WorkerLimits(), Limits(), AccessLog("off"), Networks())
    worker.combined = combined
    line = REQUEST_LINE.fullmatch(b"GET " + target + b" HTTP/1.1")
    assert line is not None
    downstream = SimpleNamespace(worker=worker, peer="192.0.2.1", peer_bytes=b"192.0.2.1", scheme=b"http")
    downstream.logged = logged(b"192.0.2.1", b"HTTP/1.1", b"TLSv1.3")
    return worker, Exchange(cast(Any, downstream), line[1], line[2], True, request_block(lines, Limits()))


@given(TARGETS, st.sampled_from(("hit", "bypass")), st.sampled_from((b"", b"Host: a_b.example:80\r\n")))
@settings(max_examples=200)
def test_a_log_line_is_valid_json_for_any_target(target: str, verdict: str, host: bytes) -> None:
    worker, ended = exchange(target.encode(), host + b"X-Request-Id: client-id-0001\r\n", False)
    ended.verdict, ended.status = verdict, 200
    ended.route = Route("site", b"*", b"/", cast(Any, None))
    ended.host = ended.host or b""
    line = json_line(worker.log.stamp, ended, 0.0015)
    found = orjson.loads(line)
    assert line.count(b"\n") == 1 and line.endswith(b"}\n")
    assert (found["client"], found["protocol"], found["tls"]) == ("192.0.2.1", "HTTP/1.1", "TLSv1.3")
    assert (found["target"], found["us"], found["id"], found["route"]) == (target, 1500, "client-id-0001", "site")


@given(st.binary(max_size=30), TARGETS)
@settings(max_examples=200)
def test_a_combined_line_is_one_line_with_its_quotes_in_place(agent: bytes, target: str) -> None:
    worker, ended = exchange(target.encode(), b"Host: a\r\nUser-Agent: " + agent + b"\r\nReferer: http://r/\r\n", True)
    line = worker._combined(ended)
    assert line.count(b"\n") == 1
    bare = line.replace(b"\\\\", b"").replace(b'\\"', b"")
    assert bare.count(b'"') == 6
    assert not any(byte < 32 for byte in line[:-1])
