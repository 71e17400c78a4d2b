"""The first line of a request, taken apart; it is remembered, for a site is asked for the same things again and again.

One rule: what is remembered is what `REQUEST_LINE` has proven, so a line means the same whether it came before or not.
"""

from __future__ import annotations

from edge.http.grammar import REQUEST_LINE, Limits
from edge.http.utf8 import utf8_request_line

RequestLine = tuple[bytes, bytes, bool]  # method, target, whether it says HTTP/1.1
LINES_REMEMBERED, LINE_LONGEST = 4096, 256  # the longer ones are taken apart each time
_known: dict[bytes, RequestLine] = {}
known_line = _known.get  # first; `request_line` where it says None


def request_line(line: bytes, limits: Limits) -> RequestLine | None:
    """The parts of a request line without its CRLF; None when it is none."""
    match = REQUEST_LINE.fullmatch(line)
    if match is None:
        match = utf8_request_line(line, limits)
        return None if match is None else (match[1], match[2], match[3] != b"0")
    found = (match[1], match[2], match[3] != b"0")
    if len(line) <= LINE_LONGEST:
        if len(_known) >= LINES_REMEMBERED:
            _known.clear()
        _known[line] = found
    return found
