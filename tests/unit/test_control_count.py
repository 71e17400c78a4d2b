"""How many workers a configuration gets: one cache for everybody unless the operator gives a number."""

from __future__ import annotations

import os

import pytest

from edge.config.loader import load_text
from edge.control.early import worker_count

FILE = """
[listen]
http = ["127.0.0.1:0"]
{workers}
[[pools.web.backends]]
url = "http://127.0.0.1:1"
[[routes]]
pool = "web"
{cache}
"""
CORES = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("workers", "cache", "count"),
    [
        ("", "", 1),
        ('workers = "auto"', "", 1),
        ('workers = "auto"', "cache = false", CORES),
        ("workers = 3", "", 3),
    ],
)
def test_the_number_of_workers(workers: str, cache: str, count: int) -> None:
    assert worker_count(load_text(FILE.format(workers=workers, cache=cache), "f.toml")) == count
