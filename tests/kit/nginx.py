"""nginx as a stand-in for the gateway, as an origin, and as a peer: what a real program makes of the same bytes.

One rule: it listens on loopback only, on a free port, with every file in the directory that it is given.
"""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path
from typing import Self

from kit.ports import LOOPBACK, free_port
from kit.processes import Process

HEAD = """
daemon off; master_process off; pid {dir}/nginx.pid; error_log {dir}/error.log crit;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_body_temp_path {dir}/b; proxy_temp_path {dir}/p;
  fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
"""
PROXY = """
  client_max_body_size 64k;
  client_header_timeout 2s; client_body_timeout 2s; large_client_header_buffers 4 8k;
  upstream origin {{ server 127.0.0.1:{origin}; keepalive 16; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header Host $host; proxy_read_timeout 1s; proxy_buffering off; proxy_request_buffering off;
    }}
  }}
}}
"""
SITE = """
  types {{ text/html html; text/css css; text/javascript js; image/svg+xml svg; }}
  server {{ listen 127.0.0.1:{port}; root {root}; add_header Cache-Control "max-age=600"; }}
}}
"""
READER = """
  set_real_ip_from 127.0.0.1; real_ip_header proxy_protocol;
  server {{ listen 127.0.0.1:{port} proxy_protocol; location / {{ return 200 "$remote_addr $proxy_protocol_port"; }} }}
}}
"""
UNIX_FRONT = """
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://unix:{socket}:; proxy_http_version 1.1; proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $remote_addr;
    }}
  }}
}}
"""


class NginxProcess(Process):
    """nginx by one of the texts above, ready when it is returned; `http_port` as in `GatewayProcess`."""

    def __init__(self, text: str, directory: Path, **values: object) -> None:
        self.http_port = free_port()
        home = directory / "nginx"
        home.mkdir()
        config = home / "nginx.conf"
        config.write_text((HEAD + text).format(dir=home, port=self.http_port, **values))
        super().__init__([_nginx(), "-p", str(home), "-c", str(config)], home, "nginx")
        self.wait_ready(lambda: accepts(self.http_port))

    @classmethod
    def before(cls, origin_port: int, directory: Path) -> Self:
        """A proxy before one origin: it shows that a failing case is the gateway's, not the kit's."""
        return cls(PROXY, directory, origin=origin_port)

    @classmethod
    def site(cls, root: Path, directory: Path) -> Self:
        """An origin for the files below `root`."""
        return cls(SITE, directory, root=root)


def _nginx() -> str:
    program = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if program is None:
        raise FileNotFoundError("nginx is not installed")
    return program


def accepts(port: int) -> bool:
    """Whether somebody listens there."""
    try:
        with socket.create_connection((LOOPBACK, port), 1):
            return True
    except OSError:
        return False
