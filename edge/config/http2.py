"""`[listen.http2]`: how much of a gateway one HTTP/2 connection may take (RFC 9113 10.5).

One rule: each known flood has a bound here, and its default is safe on the open internet.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from edge.config.types import AtLeastOne, Count, PositiveSize, Section, entry

AtMost1000 = Annotated[int, Field(ge=1, le=1000)]


class Http2(Section):
    """`[listen.http2]`."""

    streams: AtMost1000 = entry(100, "Requests of one connection at the same time; further ones are refused")
    requests: AtLeastOne = entry(10_000, "Requests of one connection; then the client is asked to open another one")
    resets: AtLeastOne = entry(
        200, "Streams that a client may cancel, or make us cancel, at once; more end the connection"
    )
    resets_per_second: AtLeastOne = entry(20, "How many more each second")
    control_frames: AtLeastOne = entry(
        200, "SETTINGS, PING, PRIORITY, WINDOW_UPDATE and the like at once; streams, DATA and time earn more"
    )
    continuations: Count = entry(8, "CONTINUATION frames of one head; max_header bounds their bytes")
    window: PositiveSize = entry("64KiB", "What a client may send ahead on one stream")
    connection_window: PositiveSize = entry("1MiB", "What it may send ahead on all of them together")
    header_table: PositiveSize = entry("4KiB", "Dynamic table of header compression, for each connection")

    @field_validator("window", "connection_window", "header_table")
    @classmethod
    def _not_less_than_the_protocols(cls, value: int, info: ValidationInfo) -> int:
        """Less than clients begin with would be broken before they can know it."""
        least, most = (4096, 65536) if info.field_name == "header_table" else (65536, 2**31 - 1)
        if not least <= value <= most:
            raise ValueError(f"must be from {least} to {most} bytes, got {value}")
        return value
