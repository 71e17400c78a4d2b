"""The compiled build and its source give the same bytes: to the client, and to the backend (`deploy/compiled.py`).

One rule: what is compared comes from two processes with one interpreter, which differ in nothing but the build.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from kit.builds import IS_COMPILED
from request_corpus import CASES
from test_differential import _run

ROOT = Path(__file__).resolve().parents[2]
PATHS = (b"/a", b"/a", b"/pass", b"/coded", b"/coded", b"/ruled/a")
FIELDS = (b"Range: bytes=1-2", b'If-None-Match: "v1"', b"Accept-Encoding: gzip", b"Cookie: session=1")


def transcript() -> list[str]:
    """What became of each request of the corpus, and of a few that the cache has a part in, alone and in halves."""
    cached = [
        b"".join(b"%b %b HTTP/1.%b\r\nHost: a.example\r\n%b\r\n" % (method, path, minor, line) for path in PATHS)
        for method in (b"GET", b"HEAD")
        for minor in (b"1", b"0")
        for line in (b"", *(field + b"\r\n" for field in FIELDS))
    ]
    streams = cached + [case.data for case in CASES]
    return [repr((data, asyncio.run(_run([data], [len(data) // 2], True)))) for data in streams]


def test_the_source_gives_the_same_answers() -> None:
    source = ROOT.parent.parent  # the compiled build is tested in `build/compiled` of the tree that it was made from
    paths = os.pathsep.join(str(source / each) for each in ("", "tests", "tests/conformance"))
    command = [sys.executable, str(source / "tests" / "conformance" / Path(__file__).name)]
    told = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, cwd=source, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    kind, *theirs = told.stdout.splitlines()
    assert kind == "pure Python"
    ours = transcript()
    assert len(ours) == len(theirs) > 200
    assert [pair for pair in zip(ours, theirs, strict=True) if pair[0] != pair[1]] == []


if __name__ == "__main__":
    print("compiled" if IS_COMPILED else "pure Python", *transcript(), sep="\n")
