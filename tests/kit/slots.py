"""What an object with slots holds, on both builds: mypyc's classes have descriptors, but no `__slots__` to look at."""

from __future__ import annotations

from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any


def names_of(kind: type) -> list[str]:
    """The attributes of a class; a compiled one's properties are among them."""
    kinds = (MemberDescriptorType, GetSetDescriptorType)
    found = {name for each in kind.__mro__ for name, what in vars(each).items() if isinstance(what, kinds)}
    return sorted(name for name in found if not name.startswith("__"))


def values_of(held: object) -> dict[str, Any]:
    """The values by name."""
    return {name: getattr(held, name) for name in names_of(type(held))}
