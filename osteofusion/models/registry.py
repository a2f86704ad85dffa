"""Building a part by its name, with errors that show the choices."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

Part = TypeVar("Part")


def build(
    kind: str,
    registry: Mapping[str, Callable[..., Part]],
    name: str,
    *args: object,
    **options: Any,
) -> Part:
    """Call ``registry[name](*args, **options)``.

    Raises:
        ValueError: No such name, or an option that the part does not have.
    """
    if name not in registry:
        close = difflib.get_close_matches(str(name), registry, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"{kind} is {name!r}; expected one of {sorted(registry)}{hint}")
    try:
        inspect.signature(registry[name]).bind(*args, **options)
    except TypeError as error:
        raise ValueError(f"{kind} {name!r} cannot be built from {options}: {error}") from error
    return registry[name](*args, **options)
