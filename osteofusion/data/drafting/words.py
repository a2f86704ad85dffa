"""Headers, names and cells as words: without case, accents and control characters."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection

from osteofusion.data.manifest import normalise_word

# What NFKD does not take apart.
_LETTERS = str.maketrans(
    {
        "ß": "ss",
        "ł": "l",
        "\u0131": "i",
        "ø": "o",
        "đ": "d",
        "æ": "ae",
        "œ": "oe",
        "ð": "d",
        "þ": "th",
    }
)


def fold(text: object) -> str:
    """Lower case, no accents, single spaces: `Größe ` is `grosse`."""
    lowered = normalise_word(text).translate(_LETTERS)
    plain = unicodedata.normalize("NFKD", lowered)
    return "".join(letter for letter in plain if not unicodedata.combining(letter))


def tokens(text: object) -> list[str]:
    """Folded words of a name or header; `PatientAge_yrs` has three, and digits stand alone."""
    apart = re.sub(r"(?<=[^\W\d_A-Z])(?=[A-Z])", " ", str(text))
    return re.findall(r"[^\W\d_]+|\d+", fold(apart))


def printable(text: object) -> str:
    """Text on one line, without control characters."""
    line = " ".join(str(text).split())
    return "".join(letter if letter.isprintable() else "?" for letter in line)


def shown(items: Collection[str], limit: int = 4) -> str:
    """A few items in quotes, for a comment or a message."""
    first = [f"'{printable(item)[:40]}'" for item in list(items)[:limit]]
    return ", ".join(first) + (", ..." if len(items) > limit else "")
