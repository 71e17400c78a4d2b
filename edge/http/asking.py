"""A request that the gateway makes up itself, for an operator or ahead of a client, held to what holds for clients.

One rule: everything that becomes a request passes the one grammar and its limits; there is no other way in.
"""

from __future__ import annotations

from collections.abc import Iterable

from edge.errors import BadRequest, TooLarge
from edge.http.grammar import REQUEST_LINE, Limits, RequestHeaders, request_block
from edge.http.message import Line


def asking(method: bytes, authority: bytes, target: bytes, lines: Iterable[Line], limits: Limits) -> RequestHeaders:
    """The header block of such a request. Raises BadRequest or TooLarge, as a client would be answered."""
    line = b"%b %b HTTP/1.1" % (method, target)
    if len(line) > limits.first_line_bytes:
        raise TooLarge("request line too long", 414)
    if REQUEST_LINE.fullmatch(line) is None or not target.startswith(b"/") or b"#" in target:
        raise BadRequest("invalid request target")
    block = request_block(b"".join(b"%b: %b\r\n" % each for each in ((b"Host", authority), *lines)), limits)
    if block.error is not None:
        raise block.error.error()
    return block
