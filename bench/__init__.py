"""The benchmark: the gateway beside nginx, HAProxy, Varnish and a naive aiohttp proxy, before one origin, on loopback.

One rule: every peer gets the same work in the same run, in interleaved rounds, on one core of its own.
"""

from __future__ import annotations
