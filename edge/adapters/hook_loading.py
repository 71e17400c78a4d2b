"""The hooks that a configuration names: found like applications, and looked at before the first request.

One rule: what is no plain function is refused at the start. Nobody waits in a hook.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from edge.adapters.app_server import AppUnusable, find, where

NAMES = ("request", "response", "cache_key")


class HookFunctions(NamedTuple):
    """The functions of one hook; at least one is not None."""

    request: Callable[[Any], Any] | None
    response: Callable[[Any], Any] | None
    cache_key: Callable[[Any], Any] | None


def load_hook(name: str, folders: Sequence[str]) -> HookFunctions:
    """The functions of `module:attribute`: of a class, which is made once, or of an object. Raises AppUnusable."""
    return as_hook(find(name, folders), name)


def as_hook(found: object, name: str) -> HookFunctions:
    """Check that an imported object is a hook. Raises AppUnusable."""
    if isinstance(found, type):
        try:
            found = found()
        except Exception as error:
            raise AppUnusable(f"{name}: {where(error)}{type(error).__name__}: {error}") from error
    functions = HookFunctions(*(_function(found, each, name) for each in NAMES))
    if functions == (None, None, None):
        raise AppUnusable(f"{name}: must have request, response or cache_key, got {type(found).__name__}")
    return functions


def _function(found: object, word: str, name: str) -> Callable[[Any], Any] | None:
    function: Any = getattr(found, word, None)
    if function is None:
        return None
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function) or not callable(function):
        raise AppUnusable(f"{name}: its {word} must be a plain function: there is nothing to wait for in a hook")
    return function  # type: ignore[no-any-return]
