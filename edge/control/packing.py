"""A checked configuration as a frame carries it: to read its text anew would cost each worker a hundred milliseconds.

One rule: what is unpacked came over the socketpair from the supervisor that made this process, from nowhere else.
"""

from __future__ import annotations

import base64
import pickle

from edge.config.loader import Config


def pack(config: Config) -> str:
    """A configuration as text (pickle in base64), for frames between processes of one gateway."""
    return base64.b64encode(pickle.dumps(config, protocol=5)).decode()


def unpack(packed: str) -> Config:
    """The configuration that `pack` encoded."""
    found: Config = pickle.loads(base64.b64decode(packed))
    return found
