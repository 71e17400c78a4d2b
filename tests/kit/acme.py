"""A real ACME server: Debian's `pebble`, with a DNS of its own in which every name leads to this machine.

One rule: it forgets everything when it ends; what must be known again is the gateway's to keep.
"""

from __future__ import annotations

import json
import shutil
import ssl
import urllib.request
from pathlib import Path

import trustme

from kit.ports import LOOPBACK, free_port, free_ports
from kit.processes import Process
from kit.waiting import WAIT_S

DNS, SERVER = "pebble-challtestsrv", "pebble"
LIFE_S = 5 * 365 * 86400


class Pebble:
    """`start` returns when it answers. It asks for tokens at `http_port` of this machine, whatever the name."""

    def __init__(self, directory: Path, http_port: int, life_s: int = LIFE_S) -> None:
        self.directory = directory
        self.http_port = http_port
        self.port, self.management = free_ports(2)
        self.ca = directory / "pebble-ca.pem"
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.ca)
        pair = directory / "pebble.pem"
        authority.issue_cert(LOOPBACK, "localhost").private_key_and_cert_chain_pem.write_to_path(pair)
        values = {
            "listenAddress": f"{LOOPBACK}:{self.port}",
            "managementListenAddress": f"{LOOPBACK}:{self.management}",
            "certificate": str(pair),
            "privateKey": str(pair),
            "httpPort": http_port,
            "tlsPort": free_port(),
            "certificateValidityPeriod": life_s,
        }
        self.config = directory / "pebble.json"
        self.config.write_text(json.dumps({"pebble": values}))
        self.dns_port = free_port()
        self._processes: list[Process] = []

    @property
    def url(self) -> str:
        """Of its directory."""
        return f"https://{LOOPBACK}:{self.port}/dir"

    def start(self, **environment: str) -> Pebble:
        """Both processes; `environment` is pebble's (PEBBLE_…)."""
        off = ("-http01", "", "-https01", "", "-tlsalpn01", "")
        dns = [_program(DNS), *off, "-dns01", f"{LOOPBACK}:{self.dns_port}", "-defaultIPv4", LOOPBACK]
        dns += ["-defaultIPv6", "", "-management", f"{LOOPBACK}:{free_port()}"]
        known = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0", "PEBBLE_AUTHZREUSE": "0", **environment}
        words = [f"{name}={value}" for name, value in known.items()]
        server = [_program(SERVER), "-config", str(self.config), "-dnsserver", f"{LOOPBACK}:{self.dns_port}"]
        self._processes = [
            Process(dns, self.directory, DNS),
            Process(["env", *words, *server], self.directory, SERVER),
        ]
        self._processes[1].wait_ready(lambda: self.answers)
        return self

    def stop(self) -> None:
        """As a kill would."""
        for each in self._processes:
            each.kill()
        self._processes.clear()

    @property
    def answers(self) -> bool:
        try:
            self.asked(self.url)
        except OSError:
            return False
        return True

    @property
    def log(self) -> str:
        """What pebble said since it was started last."""
        return self._processes[1].log()

    def root(self) -> str:
        """The certificate by which those that it gives are known; another one after each start."""
        return self.asked(f"https://{LOOPBACK}:{self.management}/roots/0").decode()

    def asked(self, url: str) -> bytes:
        """A GET of its own pages."""
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),
            urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=self.ca)),
        )
        with opener.open(url, timeout=WAIT_S) as answer:
            return bytes(answer.read())


def _program(name: str) -> str:
    found = shutil.which(name)
    assert found is not None, f"these tests need {name} (Debian's package pebble)"
    return found
