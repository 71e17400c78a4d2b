"""What a client says of how urgent a response is (RFC 9218), in the request's field or in a frame of its own.

One rule: it is a hint. What cannot be read says nothing, and nobody is refused for it.
"""

from __future__ import annotations

DEFAULT_URGENCY = 3


def urgency_of(priority: bytes) -> int:
    """The urgency in a Priority field (RFC 9218 4.1); the default where it says none that can be read."""
    for member in priority.split(b","):
        key, equals, value = member.strip(b" \t").partition(b"=")
        if key == b"u" and equals and len(value) == 1 and value in b"01234567":
            return int(value)
    return DEFAULT_URGENCY
