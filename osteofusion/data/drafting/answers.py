"""What cells answer, in several languages: yes and no, sex, bone status."""

from __future__ import annotations

from collections.abc import Collection

from osteofusion.data.drafting.dictionary import words as known
from osteofusion.data.drafting.words import fold, tokens
from osteofusion.data.manifest import Label

YES = known("answers", "yes")
NO = known("answers", "no")
NONE = NO | known("answers", "none")
_MALE = known("sexes", "male")
_FEMALE = known("sexes", "female")
_NEGATION = known("answers", "negation")
_NORMAL = known("statuses", "normal")
_STEMS: dict[Label, tuple[str, ...]] = {
    "osteopenia": tuple(known("statuses", "osteopenia_stems")),
    "osteoporosis": tuple(known("statuses", "osteoporosis_stems")),
}
# Letters mean different sexes in different languages (Spanish m is mujer), so a pair decides: male
# first. The plain pairs speak for themselves, the others need a header that says sex.
_PLAIN_PAIRS = (("m", "f"), ("m", "w"), ("м", "ж"))
_PAIRS = (
    *_PLAIN_PAIRS,
    *(("m", "k"), ("e", "k"), ("m", "v"), ("h", "f"), ("h", "m"), ("u", "d"), ("f", "n")),
    *(("b", "f"), ("m", "z"), ("э", "к")),
)


def yes_no(words: Collection[str]) -> dict[str, int]:
    """1 or 0 for the words that mean yes or no; empty unless there are both."""
    found = {}
    for word in words:
        plain = word if word in ("+", "-") else fold(word).rstrip(".!")
        if plain in YES or plain in NO:
            found[word] = int(plain in YES)
    return found if len(set(found.values())) == 2 else {}


def sexes(words: Collection[str], *, header_says_sex: bool) -> dict[str, int]:
    """1 (female) or 0 for the words that mean a sex; empty unless there are both."""
    plain = {word: fold(word).rstrip(".") for word in words}
    letters = set(plain.values())
    for pair in _PAIRS:
        if letters.issuperset(pair) and (header_says_sex or pair in _PLAIN_PAIRS):
            return {word: pair.index(letter) for word, letter in plain.items() if letter in pair}
    found = {
        word: int(letter in _FEMALE or letter == "f")
        for word, letter in plain.items()
        if letter in _MALE or letter in _FEMALE or letter in ("m", "f")
    }
    if not (set(found) - {"m", "f", "no"} and len(set(found.values())) == 2):
        return {}
    return found


def sex_of_header(header: str) -> int | None:
    """1 for a header such as `weiblich`, 0 for one such as `male`; None for others."""
    words = {word for word in tokens(header) if len(word) > 2}
    found = [int(bool(words & _FEMALE)) for each in (_MALE, _FEMALE) if words & each]
    return found[0] if len(found) == 1 else None


def bone_status(text: object) -> Label | None:
    """The class that a folder's name or a cell names; None where it names none, two, or a "not"."""
    words = tokens(text)
    found: set[Label] = set()
    for word in words:
        found |= {label for label, stems in _STEMS.items() if word.startswith(stems)}
        if word in _NORMAL:
            found.add("normal")
    return found.pop() if len(found) == 1 and not _NEGATION & set(words) else None


def statuses(words: Collection[str]) -> dict[str, Label]:
    """The classes that can be read from the words; others are left out."""
    named = {word: bone_status(word) for word in words}
    return {word: label for word, label in named.items() if label is not None}
