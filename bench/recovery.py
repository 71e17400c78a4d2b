"""`python -m bench.recovery [MiB]`: what recovery points cost, over a disk tier of so many bytes (default 1024 MiB).

    fill ─► full ─► change 1 % ─► incremental ─► verify all ─► drill
    lose the state ─► restore ─► ready ─► first byte ─► all bodies

A state directory with a journal and a disk tier is made, half of the bodies random (as images are), half text; nothing
of the gateway runs but the drill's own and the one that the restore is followed by. The first byte is one of a stored
body, which its origin is asked about first, for no journal survives. One line of JSON at the end.
"""

from __future__ import annotations

import http.client
import http.server
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from bench.processes import as_command
from edge.adapters.disk_room import Limits
from edge.adapters.disk_tier import DiskTier
from edge.cache.purge import PurgeLog
from edge.cache.stored import Plan, build
from edge.cache.verdict import Source
from edge.cli.drill import RunningGateway
from edge.cli.second import running, spare_ports
from edge.control.journal import Journal
from edge.control.recovered import JOURNAL_FILE
from edge.http.message import Fields

SIZES = (4, 16, 40, 100, 300)  # KiB, each as often as the others
TOML = """
listen = {{ http = ["127.0.0.1:{http}"] }}
admin = {{ listen = "127.0.0.1:{admin}", token_file = "{home}/token" }}
state = {{ path = "{home}/var" }}
log = {{ access = "off" }}
cache = {{ disk = {{ path = "{home}/var/cache", size = "{size}MiB" }} }}
pools.web.backends = [{{ url = "http://127.0.0.1:{origin}" }}]
routes = [{{ pool = "web" }}]
snapshots = {{ repository = "file:{home}/points", core = "{core}" }}
"""


def filled(cache: Path, numbers: range, size_mib: int) -> int:
    """Put responses into the tier; the bytes of their bodies."""
    tier = DiskTier.open(cache, Limits(size_mib * 2**20))
    purge_log = PurgeLog()
    tier.purge_log = lambda: purge_log
    words = [
        word.encode()
        for word in ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "and", "so", "on"]
    ]
    total = 0
    for number in numbers:
        chooser = random.Random(number)
        length = SIZES[number % len(SIZES)] * 1024
        body = chooser.randbytes(length)
        if number // len(SIZES) % 2:
            body = b" ".join(chooser.choices(words, k=length // 5))[:length].ljust(length)
        plan = Plan(
            key=b"http://bench.example/%d" % number, status=200, reason=b"OK",
            fields=Fields(((b"Content-Type", b"text/plain"), (b"ETag", b'"%d"' % number))), vary=(),
            received_at=time.time(), born=time.time(), lifetime_s=3600.0, source=Source.MAX_AGE, swr_s=0.0, sie_s=0.0,
            outage_s=0.0, keep_s=3600.0, must_revalidate=False, no_cache=False, plain_hits=True, etag=b'"1"',
            tags=frozenset(), part=None,
        )  # fmt: skip
        while not tier.put(build(plan, (body,)), purge_log.seq):
            time.sleep(0.01)
        total += length
        if number % 200 == 0:
            tier.writer.flush(60)
    assert tier.writer.flush(120)
    tier.close()
    return total


def edge(home: Path, *arguments: str) -> tuple[float, Any]:
    """A command; seconds, and its JSON."""
    begun = time.monotonic()
    found = subprocess.run(
        [sys.executable, "-m", "edge.cli.main", *arguments, "--json", "-c", str(home / "edge.toml")],
        *(), stdout=subprocess.PIPE, check=False, cwd=home, env={**os.environ, "PYTHONPATH": os.getcwd()},
    )  # fmt: skip
    seconds = time.monotonic() - begun
    assert found.returncode == 0, (arguments, found.returncode)
    return round(seconds, 2), json.loads(found.stdout)


class Origin(http.server.BaseHTTPRequestHandler):
    """What is stored is still good."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(304 if "If-None-Match" in self.headers else 404)
        self.send_header("Cache-Control", "max-age=3600")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


def stored(port: int, number: int) -> int:
    """The bytes of a stored body, asked for over the gateway."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", f"/{number}", headers={"Host": "bench.example"})
    answer = connection.getresponse()
    length = len(answer.read())
    connection.close()
    assert answer.status == 200 and "fwd-status=304" in (answer.getheader("Cache-Status") or ""), answer.headers
    return length


def main() -> None:
    """All rows."""
    origin = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Origin)
    threading.Thread(target=origin.serve_forever, daemon=True).start()
    size_mib = int(sys.argv[1]) if len(sys.argv) > 1 else 1024
    rows: dict[str, Any] = {}
    home = Path(tempfile.mkdtemp(prefix="bench-recovery-", dir=os.environ.get("BENCH_DIR")))
    try:
        http_port, admin_port = spare_ports(2)
        values = {"home": home, "size": size_mib * 2 + 64, "core": "0%", "origin": origin.server_address[1]}
        text = TOML.format(http=http_port, admin=admin_port, **values)
        (home / "edge.toml").write_text(text)
        with Journal.open(home / "var" / JOURNAL_FILE) as journal:
            journal.record_revision(text)
            for number in range(1000):
                journal.append_purge({"kind": "tag", "value": f"t{number}", "soft": False})
        count = size_mib * 1024 * len(SIZES) // sum(SIZES)
        begun = time.monotonic()
        rows["bodies"] = count
        rows["bytes"] = filled(home / "var" / "cache", range(count), size_mib * 2)
        rows["fill_s"] = round(time.monotonic() - begun, 1)
        rows["full_s"], full = edge(home, "snapshot", "take")
        rows["full_written"] = full["written"]
        changed = filled(home / "var" / "cache", range(count, count + max(1, count // 100)), size_mib * 2)
        rows["incremental_s"], point = edge(home, "snapshot", "take", "--kind", "incremental")
        rows["incremental_changed"], rows["incremental_written"] = changed, point["written"]
        rows["verify_all_s"], verified = edge(home, "snapshot", "verify", "--read-data")
        assert verified["ok"]
        rows["drill_s"], drill = edge(home, "drill")
        assert drill["passed"], drill["problems"]
        rows["drill_steps"] = {each["step"]: each["seconds"] for each in drill["steps"]}
        shutil.rmtree(home / "var")
        begun = time.monotonic()
        rows["restore_s"], restored = edge(home, "restore")
        rows["restored_bodies"] = restored["bodies"]
        with running(home / "edge.toml", home) as check:
            RunningGateway(http_port, admin_port).wait(check)
            rows["restore_to_ready_s"] = round(time.monotonic() - begun, 2)
            assert stored(http_port, count // 2) == SIZES[count // 2 % len(SIZES)] * 1024
            rows["restore_to_first_byte_s"] = round(time.monotonic() - begun, 2)
            while (home / "var/cache/store/awaited").exists():
                time.sleep(0.05)
            rows["restore_to_all_bodies_s"] = round(time.monotonic() - begun, 2)
        rows["peak_rss_mib"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    finally:
        shutil.rmtree(home, ignore_errors=True)
    print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    as_command(main)
