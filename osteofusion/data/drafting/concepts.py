"""What a column's header means: a dictionary of clinical facts in several languages, with units."""

from __future__ import annotations

import re
from dataclasses import dataclass

from osteofusion.data.drafting.dictionary import words
from osteofusion.data.drafting.words import tokens


@dataclass(frozen=True)
class Unit:
    """A unit in a file: its words, and the factor to the canonical unit."""

    name: str
    scale: float
    words: frozenset[str]


@dataclass(frozen=True)
class Quantity:
    """A measured quantity.

    Attributes:
        unit: Canonical unit.
        range: Plausible lowest and highest value; None where we would not dare.
        units: What files use, the likeliest first.
        usual: Where the median of a cohort lies, in the canonical unit.
    """

    unit: str
    range: tuple[float, float] | None = None
    units: tuple[Unit, ...] = ()
    usual: tuple[float, float] | None = None


@dataclass(frozen=True)
class Concept:
    """A clinical fact.

    Attributes:
        name: Canonical name of the column.
        whole: Headers, folded, without unit and filler words.
        stems: Beginnings of words that say it wherever they stand in the header.
        quantity: What is measured, where it is a number.
        follows_label: Why it is an outcome; empty for a feature.
    """

    name: str
    whole: frozenset[str] = frozenset()
    stems: tuple[str, ...] = ()
    quantity: Quantity | None = None
    follows_label: str = ""

    @property
    def is_outcome(self) -> bool:
        """Whether it defines or follows the label."""
        return bool(self.follows_label)


def _unit(name: str, scale: float) -> Unit:
    return Unit(name, scale, words("units", name) | {name})


_TIME = (_unit("years", 1.0), _unit("months", 1 / 12))
_LENGTH = (
    _unit("m", 1.0),
    _unit("cm", 0.01),
    _unit("inches", 0.0254),
    _unit("feet", 0.3048),
    _unit("mm", 0.001),
)
_MASS = (_unit("kg", 1.0), _unit("pounds", 0.45359237))
_UNIT_WORDS = frozenset().union(*(unit.words for unit in (*_TIME, *_LENGTH, *_MASS)))

_QUANTITIES = {
    "age": Quantity("years", (15, 105), _TIME, (15, 105)),
    "menopause_age": Quantity("years", (20, 65), _TIME, (30, 60)),
    "height": Quantity("m", (1.2, 2.2), _LENGTH, (1.3, 2.0)),
    "weight": Quantity("kg", (25, 250), _MASS, (30, 115)),
    "bmi": Quantity("kg/m2", (10, 70)),
    "pregnancies": Quantity("count", (0, 20)),
    "t_score": Quantity("SD", (-8, 6)),
    "z_score": Quantity("SD", (-8, 6)),
}
_OUTCOMES = {
    "t_score": "it defines the label",
    "z_score": "it follows the bone status",
    "bmd": "it defines or follows the bone status",
    "frax": "it is reckoned from what defines the label",
    "treatment": "a treatment follows the diagnosis",
    "diagnosis": "it defines or follows the bone status",
}
# In order: the first that fits counts, so that "age at menopause" is no age.
_NAMES = (
    *("family_history", "menopause_age", "t_score", "z_score", "bmd", "frax", "treatment"),
    *("diagnosis", "fracture_history", "age", "female", "height", "weight", "bmi"),
    *("pregnancies", "smoker", "alcohol", "diabetes", "hypothyroidism", "steroids", "estrogen"),
    "dialysis",
)
CONCEPTS = {
    name: Concept(
        name,
        words("concepts", name, "whole"),
        tuple(words("concepts", name, "stems")),
        _QUANTITIES.get(name),
        _OUTCOMES.get(name, ""),
    )
    for name in _NAMES
}
_SCORES = re.compile(
    r"\b([tz]) ?(score|wert|scor\w*|skor\w*|value|waarde|deger\w*|puntuacion|punteggio|indice"
    r"|index|критери\w*)\b|\b(?:score|wskaznik|wynik|indice|index|puntuacion|skor\w*|punteggio"
    r"|критери\w*|wartosc|wert) ([tz])\b"
)


def find_concept(header: str) -> Concept | None:
    """The clinical fact that a header names; None where we know none."""
    parts = tokens(header)
    text = " ".join(parts)
    found = _SCORES.search(text)
    if found:
        return CONCEPTS[f"{found.group(1) or found.group(3)}_score"]
    core = [part for part in parts if part not in words("headers", "fillers") | _UNIT_WORDS]
    for phrase in (text, " ".join(core)):
        for concept in CONCEPTS.values():
            if phrase in concept.whole or any(part.startswith(concept.stems) for part in parts):
                return concept
    return None


def find_unit(header: str, quantity: Quantity) -> Unit | None:
    """The unit that a header gives for a quantity."""
    parts = set(tokens(header))
    for given in (parts - {"in"}, parts):  # "Groesse in cm" is not in inches
        for unit in quantity.units:
            if given & unit.words:
                return unit
    return None


def bracketed_unit(header: str) -> str | None:
    """What stands in brackets, where it could be a unit."""
    found = re.search(r"[(\[]\s*([^()\[\]\s]{1,12})\s*[)\]]\s*[:.]?\s*$", header)
    return found.group(1) if found and not found.group(1).isdigit() else None


def says(header: str, what: str) -> bool:
    """Whether words or phrases of the dictionary's `headers` stand in a header.

    A phrase that ends in a star is the beginning of a word.
    """
    text = f" {' '.join(tokens(header))} "
    wanted = (f" {phrase} ".replace("* ", "") for phrase in words("headers", what))
    return any(phrase in text for phrase in wanted)


def canonical_name(header: str) -> str:
    """A lower-case name of ASCII letters, digits and underscores; empty where nothing is left."""
    plain = re.sub(r"[(\[][^()\[\]]*[)\]]", " ", header)
    name = "_".join(part for part in tokens(plain) if part.isascii())
    return f"n_{name}" if name[:1].isdigit() else name
