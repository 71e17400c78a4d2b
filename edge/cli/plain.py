"""A console for which what is printed is text: neither markup nor anything that a terminal obeys."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from edge.cli.text import safe


class Plain(Console):
    """A console that prints text as text."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(safe(each) if isinstance(each, str) else each for each in objects), **options)
