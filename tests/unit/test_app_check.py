"""The process in which applications are tried: whatever becomes of who asked, it ends."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from kit.waiting import WAIT_S, until_blocking

ASKS = "import sys\nfrom edge.adapters.app_check import tried\ntried(['app slow:app'], [sys.argv[1]])\n"
TELLS = """\
import os, pathlib
told = pathlib.Path(__file__).with_name("pid")
told.with_suffix(".new").write_text(str(os.getpid()))
told.with_suffix(".new").rename(told)
"""
SLEEPS = "import time\ntime.sleep(3600)\n"
HOLDS = "import ctypes\nctypes.PyDLL(None).sleep(3600)\n"  # in C, so that nothing of Python runs in the process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("hangs", [SLEEPS, HOLDS])
def test_it_ends_with_who_asked(tmp_path: Path, hangs: str, number: signal.Signals) -> None:
    (tmp_path / "slow.py").write_text(TELLS + hangs)
    with subprocess.Popen([sys.executable, "-c", ASKS, str(tmp_path)]) as asks:
        told = tmp_path / "pid"
        until_blocking(told.exists)
        child = int(told.read_text())
        handle = os.pidfd_open(child)
        asks.send_signal(number)
    try:
        assert select.select([handle], [], [], WAIT_S)[0], "it outlived who asked"
    finally:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        os.close(handle)


def test_it_ends_itself_when_nobody_ends_it() -> None:
    code = "from edge.adapters import app_check as ours\nours.IMPORT_S = 1 - ours.LONGER_S\nours.end_with(0)\n" + HOLDS
    theirs, held = os.pipe()
    try:
        done = subprocess.run([sys.executable, "-c", code], stdin=theirs, timeout=WAIT_S, check=False)
    finally:
        os.close(theirs)
        os.close(held)
    assert done.returncode == -signal.SIGALRM


def test_an_import_that_reads_gets_nothing(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import sys\nassert sys.stdin.read() == ''\nraise ValueError('read to the end')\n"
    )
    code = ASKS.replace("tried([", "print(tried([").replace("[1]])", "[1]]))")
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, timeout=WAIT_S, check=True)
    assert b"read to the end" in done.stdout
