"""The gateway's worker with the memory of HPACK blocks off: what HTTP/2 costs where no client repeats itself.

One rule: it serves a configuration as `edge run` does, by the same parts in the same order; the one switch is thrown
before anybody connects. There is no supervisor, whose cost under load is next to nothing.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import uvloop

from edge.app import build, listen
from edge.config.loader import load_text


async def main(path: str, text: str) -> None:
    """Serve until killed."""
    config = load_text(text, path)
    worker = build(config, filename=path)
    worker.http2.reader.remembers = False
    await listen(worker, config)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], Path(sys.argv[1]).read_text(encoding="utf-8")))
