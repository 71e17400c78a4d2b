"""The test kit: a scripted origin, a raw client and real processes, for tests that speak bytes over real sockets.

One rule: nothing here repairs or guesses. What a peer sent is kept as raw bytes, and a message that breaks RFC 9112
raises instead of being read leniently. No part of the kit imports the gateway.
"""

from __future__ import annotations
