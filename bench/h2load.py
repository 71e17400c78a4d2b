"""h2load: one thread on the load's core over TLS, with the head of a browser, and its figures.

One rule: all peers have the same certificate and are asked the same; a run that had errors says how many. h2load tells
no percentiles: the mean stands in for the median, and the longest for the 99th.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.load import Load
from bench.processes import LOOPBACK, Refused, program

HEAD = (
    "user-agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36",
    "accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "accept-encoding: gzip, deflate, br, zstd",
    "accept-language: en-GB,en;q=0.9",
    'sec-ch-ua: "Chromium";v="130", "Not?A_Brand";v="99"',
    "sec-fetch-dest: document",
    "sec-fetch-mode: navigate",
    "sec-fetch-site: same-origin",
    "cookie: session=0123456789abcdef0123456789abcdef",
)
PATHS = 1_000
_UNITS = {"us": 1, "ms": 1_000, "s": 1_000_000}
_REQUESTS = re.compile(r"requests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored")
_STATUS = re.compile(r"status codes: (\d+) 2xx")
_TRAFFIC = re.compile(r"traffic: \S+ \((\d+)\) total")
_TIMES = re.compile(r"time for request: +([0-9.]+)(us|ms|s) +([0-9.]+)(us|ms|s) +([0-9.]+)(us|ms|s)")


@dataclass(frozen=True, slots=True)
class Streams:
    """How a run asks. `http1`: HTTP/1.1 over TLS; `many_paths`: `path` with a number behind it."""

    path: str
    connections: int
    streams: int
    http1: bool = False
    many_paths: bool = False


def run(port: int, shape: Streams, seconds: int, core: int, directory: Path) -> Load:
    """One run against a port."""
    h2load = program("h2load")
    if h2load is None:
        raise Refused("cases over HTTP/2 need h2load: apt-get install nghttp2-client")
    url = f"https://{LOOPBACK}:{port}{shape.path}"
    asked = [url]
    if shape.many_paths:
        listed = directory / f"paths-{port}.txt"
        listed.write_text("\n".join(f"{url}{number:05d}" for number in range(PATHS)))
        asked = ["-i", str(listed)]
    heads = [word for line in HEAD for word in ("-H", line)]
    command = [
        "taskset", "-c", str(core), h2load, "-t1", f"-c{shape.connections}", f"-m{shape.streams}", f"-D{seconds}",
        *(["--h1"] if shape.http1 else []), *heads, *asked,
    ]  # fmt: skip
    said = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False)
    return parsed(said.stdout + said.stderr, seconds)


def parsed(text: str, seconds: int) -> Load:
    """The figures in what h2load says."""
    requests, status, times = _REQUESTS.search(text), _STATUS.search(text), _TIMES.search(text)
    if requests is None or status is None or times is None or not int(status[1]):
        raise Refused(f"h2load failed: {text.strip()[-200:]}")
    done = int(requests[1])
    traffic = _TRAFFIC.search(text)
    longest, mean = float(times[3]) * _UNITS[times[4]], float(times[5]) * _UNITS[times[6]]
    errors = max(0, done - int(status[1])) + int(requests[4])  # a stream that the end of the time cut has its status
    return Load(done, seconds, int(traffic[1]) if traffic else 0, int(mean), int(longest), errors)
