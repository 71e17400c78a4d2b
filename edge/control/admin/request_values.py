"""Values of a request's JSON object, each read with one clear line for each mistake."""

from __future__ import annotations

import math
from typing import Any

from edge.control.admin.errors import Refusal

MAX_TEXT = 500


def text_of(body: dict[str, Any], key: str, required: bool = False) -> str:
    """A short text without control characters."""
    value = body.get(key)
    if value is None:
        if required:
            raise Refusal(f"{key}: is missing")
        return ""
    if not isinstance(value, str) or len(value) > MAX_TEXT or not value.isprintable():
        raise Refusal(f"{key}: must be a text of at most {MAX_TEXT} printable characters")
    return value


def real(body: dict[str, Any], key: str, low: float, high: float) -> float | None:
    """A real number in the body, or None."""
    value = body.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Refusal(f"{key}: must be a number")
    if not low <= value <= high:
        raise Refusal(f"{key}: must be between {low:g} and {high:g}")
    return float(value)
