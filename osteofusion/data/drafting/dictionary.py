"""The dictionary of `dictionary.yaml`, folded as headers and cells are."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from osteofusion.data.drafting.words import fold


@cache
def _content() -> dict[str, dict[str, Any]]:
    text = Path(__file__).with_name("dictionary.yaml").read_text(encoding="utf-8")
    content: dict[str, dict[str, Any]] = yaml.load(text, Loader=yaml.BaseLoader)  # yes stays a word
    return content


@cache
def words(*path: str) -> frozenset[str]:
    """The folded words at a place such as `answers`, `yes`; none where it is not there."""
    found: Any = _content()
    for key in path:
        found = found.get(key, {})
    return frozenset(fold(word) for word in found.split(",")) if found else frozenset()


def letters_of() -> dict[str, str]:
    """Letters beyond ASCII that the languages of each code page use."""
    return _content()["letters"]
