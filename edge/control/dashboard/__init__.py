"""The dashboard: the files of one page (`static/`), and how they are handed out.

One rule: the page is plain files without secrets; whatever it shows, it asks of the admin API with a token that a
person typed. So it is open to anyone who may connect, and cannot be framed, extended or made to talk to anyone else:
its policy allows scripts, styles and requests of its own origin alone.
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

STATIC = Path(__file__).parent / "static"
INDEX = "index.html"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".LICENSE": "text/plain; charset=utf-8",
}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cache-Control": "no-cache",
    "Vary": "Accept-Encoding",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file as it is sent."""

    content_type: str
    body: bytes
    zipped: bytes
    etag: str


@cache
def assets() -> dict[str, Asset]:
    """All files by their name below `static`, read once, when the page is asked for the first time."""
    found = {}
    for path in sorted(STATIC.rglob("*")):
        if path.suffix in TYPES:
            body = path.read_bytes()
            zipped = gzip.compress(body, 6, mtime=0)
            name = path.relative_to(STATIC).as_posix()
            found[name] = Asset(TYPES[path.suffix], body, zipped, hashlib.sha256(body).hexdigest()[:20])
    return found
