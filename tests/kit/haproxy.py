"""HAProxy as a peer: before the gateway, passing connections on with a PROXY header, or behind it, reading one.

One rule: it listens on loopback only, on a free port, with every file in the directory that it is given.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from kit.nginx import accepts
from kit.ports import free_port
from kit.processes import Process

CONFIG = """
global
  maxconn 200
defaults
  timeout connect 60s
  timeout client 60s
  timeout server 60s
frontend here
  mode {mode}
  bind 127.0.0.1:{port} {bind}
  {front}
{back}
"""


class HaproxyProcess(Process):
    """One frontend."""

    def __init__(self, directory: Path, text: dict[str, str]) -> None:
        self.http_port = free_port()
        config = directory / "haproxy.cfg"
        config.write_text(CONFIG.format(port=self.http_port, **text))
        program = shutil.which("haproxy", path=os.environ.get("PATH", "") + ":/usr/sbin")
        if program is None:
            raise FileNotFoundError("haproxy is not installed")
        super().__init__([program, "-db", "-f", str(config)], directory, "haproxy")
        self.wait_ready(lambda: accepts(self.http_port))

    @classmethod
    def before(cls, server: str, directory: Path) -> HaproxyProcess:
        """Connections go on to a server, as its line says: `127.0.0.1:80 send-proxy-v2`."""
        back = f"backend there\n  mode tcp\n  server one {server}"
        text = {"mode": "tcp", "bind": "", "front": "default_backend there", "back": back}
        return cls(directory, text)

    @classmethod
    def behind(cls, directory: Path) -> HaproxyProcess:
        """Reads a PROXY header, and answers each request with the client's address and port."""
        front = 'http-request return status 200 content-type text/plain lf-string "%[src] %[src_port]"'
        return cls(directory, {"mode": "http", "bind": "accept-proxy", "front": front, "back": ""})
