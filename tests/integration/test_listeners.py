"""What a listener's keys do on a real socket: the backlog that the kernel holds, ALPN for every certificate."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from pathlib import Path

import pytest
import trustme

from edge.app import bind, build, listen
from edge.config.loader import load_text

FILE = """
[listen]
http = ["127.0.0.1:0"]
backlog = 77
@HTTPS@
[log]
access = "off"
[pools.web]
[[pools.web.backends]]
url = "http://127.0.0.1:9"
[[routes]]
pool = "web"
"""


def backlog_of(listening: socket.socket) -> int:
    """What the kernel holds: `tcpi_sacked` of a listening socket, as `ss -l` shows it."""
    info = listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return int(struct.unpack_from("I", info, 28)[0])


async def test_the_kernel_holds_the_backlog_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[socket.socket] = []

    def bound(*given: object) -> socket.socket:
        opened.append(bind(*given))  # type: ignore[arg-type]
        return opened[-1]

    monkeypatch.setattr("edge.app.bind", bound)
    worker = build(config := load_text(FILE.replace("@HTTPS@", ""), "f"))
    try:
        await listen(worker, config)
        assert [backlog_of(each) for each in opened] == [77]
    finally:
        await worker.close()


@pytest.mark.parametrize("name", ["one.test", "two.test", "unknown.test"])
async def test_every_certificate_speaks_alpn(tmp_path: Path, name: str) -> None:
    authority = trustme.CA()
    pairs = []
    for host in ("one.test", "two.test"):
        found = authority.issue_cert(host)
        found.cert_chain_pems[0].write_to_path(tmp_path / f"{host}.pem")
        found.private_key_pem.write_to_path(tmp_path / f"{host}.key")
        pairs.append(f'{{ cert = "{tmp_path / host}.pem", key = "{tmp_path / host}.key" }}')
    https = f'[[listen.https]]\naddress = "127.0.0.1:0"\ncertificates = [{", ".join(pairs)}]'
    worker = build(config := load_text(FILE.replace("@HTTPS@", https), "f"))
    try:
        port = (await listen(worker, config))[1][1]
        client = ssl.create_default_context()
        client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
        client.set_alpn_protocols(["h2", "http/1.1"])
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname=name)
        found = writer.get_extra_info("ssl_object")
        assert found.selected_alpn_protocol() == "h2"
        writer.close()
    finally:
        await worker.close()
