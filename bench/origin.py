"""The origin that all peers stand before: one nginx worker with files, its own request counter, nothing else.

Under /f/ and /u/ every file is `no-store`, under /c/ the same file may be cached for a day, and under /k/ any name is
1 KiB that may be. One rule: the origin is never the
thing that is measured, so it logs nothing and keeps its files open.
"""

from __future__ import annotations

import os
from pathlib import Path

from bench.cases import OBJECTS
from bench.processes import LOOPBACK, Refused, Running, answer, program

SIZES = {"1k": 1024, "10k": 10 * 1024, "100k": 100 * 1024, "1m": 1024 * 1024}

CONFIG = """
{user} worker_processes 1; daemon off; pid {dir}/origin.pid; error_log {dir}/origin.err crit;
events {{ worker_connections 8192; }}
http {{
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000; keepalive_timeout 300s;
  default_type application/octet-stream; open_file_cache max=20000 inactive=1h; open_file_cache_valid 1h;
  client_body_temp_path {dir}/ob; proxy_temp_path {dir}/op; fastcgi_temp_path {dir}/of;
  uwsgi_temp_path {dir}/ou; scgi_temp_path {dir}/os;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location = /count {{ stub_status; }}
    location /f/ {{ alias {dir}/files/; add_header Cache-Control no-store; }}
    location /u/ {{ alias {dir}/files/; add_header Cache-Control no-store; }}
    location ~ ^/k/ {{ alias {dir}/files/1k; add_header Cache-Control max-age=86400; }}
    location /c/ {{ alias {dir}/files/; add_header Cache-Control max-age=86400; }}
  }}
}}
"""


def user_line() -> str:
    """nginx started by root gives its workers to another user, who could not read a private directory."""
    return "user root;" if os.geteuid() == 0 else ""


def write_files(directory: Path) -> None:
    """The sizes, and the objects of the browser mix."""
    objects = directory / "files" / "o"
    objects.mkdir(parents=True)
    for name, size in SIZES.items():
        (objects.parent / name).write_bytes(b"x" * size)
    for number in range(OBJECTS):
        (objects / f"{number:05d}").write_bytes(b"%05d" % number + b"x" * 1019)


def start(directory: Path, port: int, core: int) -> Running:
    """Write files and configuration, start, wait."""
    nginx = program("nginx")
    if nginx is None:
        raise Refused("the origin needs nginx: apt-get install nginx")
    write_files(directory)
    config = directory / "origin.conf"
    config.write_text(CONFIG.format(dir=directory, port=port, user=user_line()))
    running = Running("origin", [nginx, "-p", str(directory), "-c", str(config)], directory, core)
    try:
        return running.wait_for(port, "/f/1k")
    except BaseException:
        running.stop()
        raise


def requests_so_far(port: int) -> int:
    """How many requests the origin has answered; the question itself counts as one."""
    status, body = answer(port, "/count")
    if status != 200:
        raise Refused(f"the origin at {LOOPBACK}:{port} no longer answers")
    return int(body.split()[9])
