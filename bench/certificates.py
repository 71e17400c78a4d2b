"""The certificates of a run: one on P-256, and one of RSA with 2048 bits for who asks for `RSA_NAME`.

One rule: all peers show the same ones.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from bench.processes import Refused, program

RSA_NAME = "rsa.test"


def certificates(directory: Path) -> None:
    """cert.pem and key.pem, rsa-cert.pem and rsa-key.pem, and each two in one file, as HAProxy wants them."""
    _make(directory, "", "localhost", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
    _make(directory, "rsa-", RSA_NAME, "-newkey", "rsa:2048", "-addext", f"subjectAltName=DNS:{RSA_NAME}")


def _make(directory: Path, prefix: str, name: str, *how: str) -> None:
    openssl = program("openssl")
    if openssl is None:
        raise Refused("cases over TLS need openssl: apt-get install openssl")
    cert, key = directory / f"{prefix}cert.pem", directory / f"{prefix}key.pem"
    command = [
        openssl, "req", "-x509", *how, "-nodes", "-days", "30", "-subj", f"/CN={name}",
        "-keyout", str(key), "-out", str(cert),
    ]  # fmt: skip
    subprocess.run(command, capture_output=True, check=True, timeout=60)
    (directory / f"{prefix}both.pem").write_text(cert.read_text() + key.read_text())
