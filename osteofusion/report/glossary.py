"""The few terms that the first page cannot do without, in plain words."""

from __future__ import annotations

import re
from collections.abc import Sequence

_TERMS = {
    r"AUROC": (
        "AUROC is how often, of two persons with and without the finding, the one with it is given "
        "the higher risk: 0.5 is guessing, 1 is never wrong (macro: the mean over the classes)."
    ),
    r"split group": (
        "A split group is all films of one person, and of persons who share an identical film: "
        "they are trained on or tested together, never both."
    ),
    r"interval|\(.* to .*\)": (
        "A range such as 0.70 to 0.80 is a 95 % interval: values that these persons leave "
        "plausible; of 100 such studies, about 95 have the true one in theirs."
    ),
    r"\bOST\b": "OST is a score of weight and age alone, a fifth of (kilograms less years).",
    r"\bOSTA\b": "OSTA is the score OST in whole numbers, made for Asian women.",
    r"\bORAI\b": "ORAI is a score of age, weight and oestrogen use.",
    r"\bFRAX\b": "FRAX is a published risk of fracture over ten years, from clinical risk factors.",
    r"\b[Ff]us(ed|ion)\b": (
        "Fused is a model that reads both the radiograph and the clinical values."
    ),
    r"[Tt]abular": "Tabular is a model that reads the clinical values alone.",
}


def explained(sentences: Sequence[str]) -> str:
    """A sentence on each term that stands in some text, in the order of its first use.

    Args:
        sentences: The text.
    """
    text = " ".join(sentences)
    first = {
        meaning: found.start()
        for term, meaning in _TERMS.items()
        if (found := re.search(term, text)) is not None
    }
    return " ".join(sorted(first, key=lambda meaning: first[meaning]))
