"""Which build of the gateway runs: its source, or the extension modules made of it (`deploy/compiled.py`).

One rule: this is to be shown to people. No code does anything else on one build than on the other.
"""

from __future__ import annotations

from importlib.util import find_spec


def build_kind() -> str:
    """`compiled` or `pure Python`, by a module that every compiled build has."""
    spec = find_spec("edge.http.grammar")
    return "pure Python" if spec is None or (spec.origin or "").endswith(".py") else "compiled"
