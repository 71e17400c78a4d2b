"""Certificates in files, and handshakes by `openssl s_client`: what clients see of a TLS listener.

One rule: what is asserted is what OpenSSL's own client says, not what the gateway's library says of itself.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from pathlib import Path

import trustme

from kit.ports import LOOPBACK
from kit.waiting import WAIT_S


@dataclass(frozen=True, slots=True)
class Files:
    """A certificate chain and its key."""

    cert: Path
    key: Path

    @property
    def toml(self) -> str:
        """As an element of `certificates`."""
        return f'{{ cert = "{self.cert}", key = "{self.key}" }}'

    @property
    def pair(self) -> tuple[str, str]:
        """As the gateway's parts have it."""
        return str(self.cert), str(self.key)


def write(issued: trustme.LeafCert, folder: Path, name: str) -> Files:
    """A certificate in files of its own."""
    files = Files(folder / f"{name}.pem", folder / f"{name}.key")
    files.cert.write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(str(files.key))
    return files


def issue(authority: trustme.CA, folder: Path, *names: str) -> Files:
    """A server's certificate; the first name is that of the files too."""
    return write(authority.issue_cert(*names, common_name=names[0]), folder, names[0].replace("*", "_"))


def issue_client(authority: trustme.CA, folder: Path, common_name: str, organization: str | None = None) -> Files:
    """A client's certificate."""
    issued = authority.issue_cert(
        f"{common_name.encode().hex()}@example.com", common_name=common_name, organization_name=organization
    )
    return write(issued, folder, f"client-{common_name.encode().hex()}")


@dataclass(frozen=True, slots=True)
class Seen:
    """What `openssl s_client` said."""

    text: str
    code: int | None

    @property
    def done(self) -> bool:
        """Whether there was a handshake."""
        return "Verification" in self.text and re.search(r"(New|Reused), TLSv1\.[23]", self.text) is not None

    @property
    def subject(self) -> str:
        """The common name of the certificate that was shown; empty: none was."""
        found = re.search(r"^subject=.*CN = (.*)$", self.text, re.MULTILINE)
        return found[1] if found is not None else ""

    @property
    def reused(self) -> bool:
        """Whether the handshake resumed a session."""
        return re.search(r"^Reused, TLSv1\.[23]", self.text, re.MULTILINE) is not None

    @property
    def version(self) -> str:
        """Of TLS."""
        found = re.search(r"^(?:New|Reused), (TLSv1\.[23]),", self.text, re.MULTILINE)
        return found[1] if found is not None else ""

    @property
    def protocol(self) -> str:
        """What was agreed on (ALPN); empty: nothing."""
        found = re.search(r"^ALPN protocol: (.*)$", self.text, re.MULTILINE)
        return found[1] if found is not None else ""

    @property
    def statuses(self) -> list[int]:
        """Of the answers to what was sent."""
        return [int(each) for each in re.findall(r"HTTP/1\.1 ([0-9]{3}) ", self.text)]


GET = b"GET / HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n"


async def s_client(port: int, *options: str, name: str = "a.test", host: str = "") -> Seen:
    """A handshake, and one request on it. `name` is asked for by SNI, empty: none; `host` where it is another one."""
    asked, host = name, host or name or "a.test"
    by_name = ("-servername", asked) if asked else ("-noservername",)
    process = await asyncio.create_subprocess_exec(
        *("openssl", "s_client", "-connect", f"{LOOPBACK}:{port}", "-ign_eof", *by_name, *options),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(GET % host.encode()), WAIT_S)
    return Seen(output.decode("utf-8", "replace"), process.returncode)


def client_hello(name: bytes | None, protocols: tuple[bytes, ...] = ()) -> bytes:
    """A ClientHello of TLS 1.2, written without any library's opinion of names and protocols; not in records yet."""
    extensions = _extension(10, b"\0\2\0\x17") + _extension(11, b"\1\0") + _extension(13, b"\0\4\4\3\x08\4")
    if name is not None:
        extensions += _extension(0, _sized(b"\0" + _sized(name)))
    if protocols:
        extensions += _extension(16, _sized(b"".join([bytes((len(each),)) + each for each in protocols])))
    body = b"\3\3" + bytes(32) + b"\0" + _sized(b"\xc0\x2b\xc0\x2f") + b"\1\0" + _sized(extensions)
    return b"\1" + len(body).to_bytes(3, "big") + body


def record(content: bytes, kind: int = 22) -> bytes:
    """A record of TLS, of a handshake unless it is another kind."""
    return bytes((kind, 3, 1)) + _sized(content)


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


def _extension(number: int, data: bytes) -> bytes:
    return number.to_bytes(2, "big") + _sized(data)
