"""How a text table was written: its encoding, the mark between cells, the decimal mark."""

from __future__ import annotations

import codecs
import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from osteofusion.data.drafting.dictionary import letters_of

_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"),
         (codecs.BOM_UTF16_BE, "utf-16"))  # fmt: skip
_SAMPLE = 200_000  # bytes of lines beyond ASCII that decide
_MARKS = (",", ";", "\t", "|")


@dataclass(frozen=True)
class TextForm:
    """How to read a text table.

    Attributes:
        encoding: Name of the codec.
        delimiter: Mark between cells.
    """

    encoding: str
    delimiter: str


def sniff_text(path: Path) -> TextForm:
    """The encoding in which a text file makes most sense and the mark that makes it a table."""
    data = path.read_bytes()
    encoding = _encoding(data)
    return TextForm(encoding, _delimiter(data.decode(encoding, errors="replace"), path))


def sniff_decimal(table: pd.DataFrame) -> tuple[str, int]:
    """The decimal mark of the numbers that are text, and how many cells have the other one."""
    counts = {",": 0, ".": 0}
    for name in range(table.shape[1]):
        for cell in table.iloc[:, name]:
            if isinstance(cell, str) and (found := re.fullmatch(r"\s*[+-]?\d*([.,])\d+\s*", cell)):
                counts[found.group(1)] += 1
    mark = "," if counts[","] > counts["."] else "."
    return mark, counts["." if mark == "," else ","]


def _encoding(data: bytes) -> str:
    for bom, name in _BOMS:
        if data.startswith(bom):
            return name
    if b"\0" in data[:1000] and len(data) % 2 == 0:  # every other byte of Latin letters is 0
        return "utf-16-le" if data[1:1000:2].count(0) >= data[:1000:2].count(0) else "utf-16-be"
    try:
        data.decode("utf-8")
        return "utf-8-sig"
    except UnicodeDecodeError:
        pass
    lines = [line for line in data.splitlines() if not line.isascii()]
    sample = b"\n".join(lines)[:_SAMPLE]
    scores = {name: _plausibility(sample, name) for name in letters_of() if _decodes(data, name)}
    return max(scores, key=lambda name: scores[name]) if scores else "latin-1"


def _decodes(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _plausibility(sample: bytes, encoding: str) -> float:
    """Share of the words beyond ASCII that look like words of the encoding's languages."""
    letters = letters_of()[encoding]
    alphabet = encoding in ("cp1251", "cp1253", "gb18030")  # whole words, not single accents
    words = re.findall(r"\S*[^\x00-\x7f]\S*", sample.decode(encoding, errors="ignore"))
    score = 0.0
    for word in words:
        for part in re.findall(r"[^\x00-\x7f]+", word):
            known = [
                letter in letters or (not letters and "\u4e00" <= letter <= "\u9fa5")
                for letter in part
            ]
            good = sum(known) / len(part)
            if not alphabet and len(part) > 2:  # Latin words have no long runs of accents
                good -= 1
            if alphabet and re.search(
                rf"[A-Za-z]{re.escape(part)}|{re.escape(part)}[A-Za-z]", word
            ):
                good -= 1
            letter_before = word[max(word.index(part) - 1, 0)]
            pairs = zip(letter_before + part, part, strict=False)
            if any(one.islower() and other.isupper() for one, other in pairs):
                good -= 1
            score += good
    return score / max(len(words), 1)


def _delimiter(text: str, path: Path) -> str:
    best, found = (0.0, 0), "\t" if path.suffix.lower() == ".tsv" else ","
    for mark in dict.fromkeys((found, *_MARKS)):
        try:
            lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True))
        except csv.Error:
            continue
        widths = [len(line) for line in lines if any(line)]
        width = widths[0] if widths else 0
        fitting = sum(each == width for each in widths) / max(len(widths), 1)
        if width > 1 and (fitting, width) > best:
            best, found = (fitting, width), mark
    return found
