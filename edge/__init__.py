"""StreamGate Edge: an asyncio L7 reverse proxy and edge gateway."""

__version__ = "0.1.0"
