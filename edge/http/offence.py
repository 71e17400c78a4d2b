"""Why bytes are no head: of a request the first offence in the order of the stream, wherever the stream was cut.

One rule: the answer to a stream is that of its first byte that no later byte can mend. So a head that comes at once is
refused as one that comes byte by byte, and nothing waits that can never become a head.
"""

from __future__ import annotations

import re

from edge.errors import BadRequest, ClientError, ResponseInvalid, TooLarge
from edge.http.grammar import REQUEST_LINE, Limits
from edge.http.utf8 import utf8_request_line

_ANSWER = b"HTTP/1."
VERSION_ONLY = re.compile(rb"[^\r\n]* HTTP/[0-9]+(?:\.[0-9]+)?")


def offence(data: bytes, limits: Limits) -> ClientError | None:
    """The first offence in what came of a head; None when it may still become one (or is one)."""
    start = 0
    if data.startswith(b"\r\n"):  # one empty line before a request is skipped (RFC 9112 2.2)
        start = 2
        if data.startswith(b"\r\n", 2):
            return BadRequest("empty lines instead of a request")
    lead = data[start : start + 2]
    if lead[:1] < b"!" and lead not in (b"", b"\r", b"\r\n"):
        return BadRequest("control byte before a request")
    line_end = data.find(b"\r\n", start)
    bare = _bare_lf(data, start)
    limit = start + limits.first_line_bytes
    if line_end < 0 or line_end > limit:
        if 0 <= bare <= limit:
            return BadRequest("bare LF")
        came = len(data) - data.endswith(b"\r") if line_end < 0 else line_end
        return TooLarge("request line too long", 414) if came > limit else None
    if 0 <= bare < line_end:
        return BadRequest("bare LF")
    line = data[start:line_end]
    if line and REQUEST_LINE.fullmatch(line) is None and utf8_request_line(line, limits) is None:
        return request_line_error(line, limits)
    end, most = data.find(b"\r\n\r\n", start), start + limits.head_bytes
    whole = end >= 0 and end + 4 <= most
    if 0 <= bare < (end if whole else most):
        return BadRequest("bare LF")
    return None if whole or len(data) <= most else TooLarge("header section too large", 431)


def check_beginning(data: bytes, limits: Limits) -> None:
    """Raise ResponseInvalid for what came of an answer's head and can never become one: nobody waits for the rest."""
    if len(data) > limits.head_bytes:
        raise ResponseInvalid("response head too large")
    if not (data.startswith(_ANSWER) or _ANSWER.startswith(data)):
        raise ResponseInvalid("malformed status line")
    bare = _bare_lf(data, 0)
    if bare >= 0:
        raise ResponseInvalid("malformed field line" if data.find(b"\r\n", 0, bare) >= 0 else "malformed status line")


def _bare_lf(data: bytes, start: int) -> int:
    """Where the first LF without its CR is; -1 when there is none."""
    if data.count(b"\n", start) == data.count(b"\r\n", start):
        return -1
    at = data.find(b"\n", start)
    while at > start and data[at - 1] == 13:
        at = data.find(b"\n", at + 1)
    return at


def request_line_error(line: bytes, limits: Limits) -> ClientError:
    """Why a first line was not proven: too long, another version, or malformed."""
    if len(line) > limits.first_line_bytes:
        return TooLarge("request line too long", 414)
    if VERSION_ONLY.fullmatch(line) and not line.rpartition(b" ")[2].startswith(b"HTTP/1."):
        return BadRequest("HTTP version not supported", 505)
    return BadRequest("malformed request line")
