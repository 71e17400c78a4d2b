"""`python -m bench.walk [hit|miss|uncacheable|failover]`: one request as the list of functions that it runs through.

A gateway in this process, an origin beside it, and the trace hook of the interpreter: the list is what the code does,
not what somebody wrote down. One rule: others of its kind went before, so that nothing is shown that only a first one
does (connections are made, heads that come again are remembered).
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from email.utils import formatdate
from itertools import count
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from edge.app import build, listen
from edge.config.loader import load_text

KINDS = ("hit", "miss", "uncacheable", "failover")
BEFORE = 4  # requests that are not shown
_PAGES = count()  # none is asked for in two walks: request lines are remembered
SETTLE = 0.005  # seconds; what a request leaves to later turns of the loop is its own
IDLE = 1.5  # seconds without a request: what comes by the clock shows itself
ROOT = str(Path(__file__).resolve().parents[1] / "edge")
TOML = """
listen = {{ http = ["127.0.0.1:0"] }}
state = {{ path = "{place}" }}
log = {{ access = "{place}/access.log" }}
pools.web = {{ ejection = false, backends = [{backends}] }}
routes = [{{ pool = "web" }}{routes}]
{lines}
"""


class Origin:
    """Answers what the kind of walk needs."""

    def __init__(self, kind: str) -> None:
        self._control = b"no-store" if kind == "uncacheable" else b"max-age=60"
        date = formatdate(usegmt=True).encode()
        self._head = b"HTTP/1.1 200 OK\r\nDate: %b\r\nContent-Length: 2\r\nCache-Control: " % date

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(self._head + self._control + b"\r\n\r\nok")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


def _outermost(frame: FrameType) -> CodeType:
    """The function below edge/ by which the loop came here."""
    found = frame.f_code
    above: FrameType | None = frame
    while above is not None:
        if above.f_code.co_filename.startswith(ROOT):
            found = above.f_code
        above = above.f_back
    return found


class Walk:
    """The functions below edge/, in the order of their first call. What also runs when nobody asks is no part of it."""

    def __init__(self) -> None:
        self.steps: dict[tuple[str, str], int] = {}
        self.instructions: Counter[tuple[str, str]] = Counter()  # of the interpreter, by file and function
        self._idle: set[CodeType] = set()

    def begin(self) -> None:
        """The next request is another walk."""
        self.steps, self.instructions = {}, Counter()

    def watch_idle(self, frame: FrameType, event: str, arg: Any) -> None:
        """For `sys.settrace` while no request is under way: learns what comes by the clock."""
        if event == "call" and frame.f_code.co_filename.startswith(ROOT):
            self._idle.add(_outermost(frame))

    def hook(self, frame: FrameType, event: str, arg: Any) -> Any:
        """For `sys.settrace` around the request."""
        code = frame.f_code
        if not code.co_filename.startswith(ROOT) or _outermost(frame) in self._idle:
            return None
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        if not code.co_name.startswith("<"):
            step = (code.co_filename.removeprefix(ROOT + "/"), code.co_qualname)
            self.steps[step] = self.steps.get(step, 0) + 1
        return self._runs

    def _runs(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "opcode":
            code = frame.f_code
            self.instructions[code.co_filename.removeprefix(ROOT + "/"), code.co_qualname] += 1
        return self._runs


async def ask(port: int, target: str, found: Walk, walks: int) -> None:
    """Requests on a kept connection; the last ones are walks."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    ran = []
    for number in range(BEFORE + walks):
        if number == BEFORE:
            sys.settrace(found.watch_idle)
            await asyncio.sleep(IDLE)
            sys.settrace(found.hook)
        found.begin()
        writer.write(b"GET %b HTTP/1.1\r\nHost: site.example\r\n\r\n" % target.format(next(_PAGES)).encode())
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(2)
        await asyncio.sleep(SETTLE)
        ran.append((found.instructions.total(), number, found.steps, found.instructions))
    sys.settrace(None)
    writer.close()
    _, _, found.steps, found.instructions = min(ran[BEFORE:])
    for _, _, _, instructions in ran[BEFORE:]:
        found.instructions &= instructions


async def walk(kind: str, lines: str = "", routes: str = "", walks: int = 1) -> Walk:
    """The walk of one request; `lines` and further routes are put to the configuration. Of several, that of the
    fewest instructions, and of each function the fewest: some come once a second, some by how long something took.
    """
    origin = Origin(kind)
    server = await asyncio.start_server(origin.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    urls = [f'{{ url = "http://127.0.0.1:{port}" }}']
    if kind == "failover":  # the first in turn refuses
        urls.insert(0, '{ url = "http://127.0.0.1:1" }')
    with tempfile.TemporaryDirectory(prefix="walk-") as place:
        config = load_text(TOML.format(place=place, backends=", ".join(urls), lines=lines, routes=routes), "walk.toml")
        worker = build(config)
        addresses = await listen(worker, config)
        found = Walk()
        await ask(addresses[0][1], "/page" if kind == "hit" else "/page/{}", found, walks)
        await worker.drain(1.0)
        await worker.close()
    server.close()
    return found


def main() -> int:
    """Print the walk of each kind that is asked for."""
    parser = argparse.ArgumentParser(prog="bench.walk", description="One request as the functions that it runs.")
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)} (default: all)")
    kinds = parser.parse_args().kinds or KINDS
    if unknown := set(kinds) - set(KINDS):
        parser.error(f"no such walk: {', '.join(sorted(unknown))}")
    for kind in kinds:
        found = asyncio.run(walk(kind))
        print(f"\n{kind}: {sum(found.steps.values())} calls of {len(found.steps)} functions")
        last = ""
        for (file, name), times in found.steps.items():
            print(f"  {'' if file == last else file:38} {name}{f' × {times}' if times > 1 else ''}")
            last = file
    return 0


if __name__ == "__main__":
    sys.exit(main())
