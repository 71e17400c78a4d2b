"""The kit's processes: nothing that a test started outlives it."""

from __future__ import annotations

import signal
from pathlib import Path

from kit.processes import Process, in_session
from kit.waiting import until_blocking

from bench.measure import process_tree


def test_what_a_killed_launch_left_is_ended_with_the_next_one(tmp_path: Path) -> None:
    """As the workers of a supervisor that was killed, where the test fails before the next one has ended them."""
    command = ["/bin/sh", "-c", "sleep 600 & read nothing; wait"]
    process = Process(command, tmp_path, "shell")
    until_blocking(lambda: bool(in_session(process.pid)))
    left = in_session(process.pid)
    process.signal(signal.SIGKILL)
    process.wait()
    process.launch(command)
    assert all(process_tree(pid) for pid in left)
    process.kill()
    until_blocking(lambda: not any(process_tree(pid) for pid in left))
