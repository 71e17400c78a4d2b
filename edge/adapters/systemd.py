"""The service manager's protocols: what it is told (sd_notify), and the sockets that it gives (LISTEN_FDS).

One rule: without a manager nothing happens; with one, the gateway waits for it half a second at most and never fails
because of it.
The variables are taken out of the environment, so that no child takes itself for the service.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping

FIRST_FD = 3
WAIT_S = 0.5  # for room in the manager's queue, with what must not be lost
NOTIFY, WATCHDOG, WATCHDOG_PID = "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"
LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES = "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"


class Manager:
    """One service manager, or none."""

    def __init__(self, environment: MutableMapping[str, str] | None = None, pid: int | None = None) -> None:
        found = os.environ if environment is None else environment
        own = str(os.getpid() if pid is None else pid)
        self._where = found.pop(NOTIFY, "")
        micros, meant = found.pop(WATCHDOG, ""), found.pop(WATCHDOG_PID, own)
        watched = bool(self._where) and micros.isdigit() and int(micros) > 0 and meant == own
        self.watchdog_s = int(micros) / 1e6 / 2 if watched else None  # how often it wants to hear; half of its patience
        count, meant = found.pop(LISTEN_FDS, ""), found.pop(LISTEN_PID, "")
        found.pop(LISTEN_FDNAMES, None)
        mine = count.isdigit() and meant == own
        self.fds = range(FIRST_FD, FIRST_FD + int(count)) if mine else range(0)

    def handed_over(self) -> dict[str, str]:
        """The environment that a successor needs to talk to the same manager."""
        found = {NOTIFY: self._where} if self._where else {}
        if self.watchdog_s is not None:
            found[WATCHDOG] = str(int(self.watchdog_s * 2e6))
        return found

    def ready(self, status: str = "") -> None:
        """Report that the gateway has started or reloaded."""
        self._tell("READY=1", *([f"STATUS={status}"] if status else []))

    def reloading(self) -> None:
        """About to load the configuration again; `ready` follows whatever comes of it."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """Report that the gateway is stopping."""
        self._tell("STOPPING=1")

    def alive(self) -> None:
        """Reset systemd's watchdog."""
        self._tell("WATCHDOG=1", wait_s=0.0)

    def main_is(self, pid: int) -> None:
        """Another process is the service from now on."""
        self._tell(f"MAINPID={pid}", "READY=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._tell(f"STATUS={text}")

    def _tell(self, *lines: str, wait_s: float = WAIT_S) -> None:
        if not self._where:
            return
        where = "\0" + self._where[1:] if self._where.startswith("@") else self._where
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.settimeout(wait_s)
                sock.sendto("\n".join(lines).encode(), where)
        except OSError:
            pass  # a manager that does not listen is not worth a failure
