"""What every PDF of ours needs: fonts that hold more than Latin, and text that is only text."""

from __future__ import annotations

import unicodedata
from html import escape
from pathlib import Path

import matplotlib
from reportlab import rl_config
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont

FONT, BOLD = "Report", "Report-Bold"


def set_up() -> None:
    """Fonts (DejaVu, which matplotlib brings along), and plain streams instead of ASCII85."""
    rl_config.useA85 = 0  # it makes files a quarter larger, and is slow without C
    if FONT in pdfmetrics.getRegisteredFontNames():
        return
    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    for name, file in ((FONT, "DejaVuSans.ttf"), (BOLD, "DejaVuSans-Bold.ttf")):
        pdfmetrics.registerFont(TTFont(name, folder / file))
    pdfmetrics.registerFontFamily(FONT, normal=FONT, bold=BOLD, italic=FONT, boldItalic=BOLD)


def plain(text: str) -> str:
    """The text without control characters and lone surrogates, which no PDF can hold."""
    spaced = text.translate({ord(letter): " " for letter in "\t\n\v\f\r"})
    return "".join(each for each in spaced if unicodedata.category(each) not in ("Cc", "Cs"))


def markup(text: str) -> str:
    """Text as ReportLab's markup, none of which it can contain itself."""
    return escape(plain(text))
