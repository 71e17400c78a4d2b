"""An exception object is never shared: what is remembered, or stands in a module, is no exception."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any, cast

import pytest
from fakes import FakeTransport
from kit.slots import values_of

import edge
from edge.adapters.logs import AccessLog
from edge.dataplane.client.connection import ClientConnection
from edge.dataplane.core.limits import WorkerLimits
from edge.dataplane.worker.worker import Worker
from edge.errors import BadRequest, Refusal
from edge.http.forwarding import Networks
from edge.http.grammar import Limits, request_block

REFUSED = (
    b"Host: a\r\nHost: a\r\n",
    b"Host: a b\r\n",
    b"Host : a\r\n",
    b"Host: a\r\nContent-Length: x\r\n",
    b"Host: a\r\nTransfer-Encoding: gzip\r\n",
    b"Host: a\r\nExpect: tea\r\n",
    b"Host: a\r\n" + b"X: 1\r\n" * 101,
)


def modules() -> Iterator[str]:
    for found in pkgutil.walk_packages(edge.__path__, "edge."):
        if not found.name.endswith("__main__"):
            yield found.name


@pytest.mark.parametrize("name", list(modules()))
def test_no_module_and_no_class_holds_an_exception(name: str) -> None:
    module = importlib.import_module(name)
    held = dict(vars(module))
    for word, value in vars(module).items():
        if isinstance(value, type) and value.__module__ == name:
            held |= {f"{word}.{inner}": each for inner, each in vars(value).items()}
    assert not [word for word, value in held.items() if isinstance(value, BaseException)]


@pytest.mark.parametrize("block", REFUSED)
def test_a_refused_block_holds_words_and_each_error_is_new(block: bytes) -> None:
    facts = request_block(block, Limits())
    held = values_of(facts).values()
    assert not [value for value in held if isinstance(value, BaseException)]
    assert facts.error is not None
    first, second = facts.error.error(), facts.error.error()
    assert first is not second
    assert (first.status, first.detail) == (second.status, second.detail)


def test_a_refusal_keeps_the_words() -> None:
    error = Refusal.of(BadRequest("invalid Transfer-Encoding", 501)).error()
    assert (type(error), error.detail, error.status) == (BadRequest, "invalid Transfer-Encoding", 501)


def test_the_same_bad_head_again_and_again_leaves_no_traceback_behind() -> None:
    worker = Worker(WorkerLimits(), Limits(), AccessLog("off"), Networks())
    worker.date_line = b""
    for _ in range(50):
        downstream, transport = ClientConnection(worker), FakeTransport()
        downstream.connection_made(cast(Any, transport))
        downstream.data_received(b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n")
        assert transport.written.startswith(b"HTTP/1.1 400")
        downstream.connection_lost(None)
    remembered = worker.blocks.get(b"Host: a\r\nHost: a\r\n")
    assert remembered is not None
    assert not [name for name, value in values_of(remembered).items() if hasattr(value, "__traceback__")]
