"""Words that clinics write into cells, in several languages: yes and no, sex, bone status."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping

from osteofusion.data.manifest import Label, normalise_word

# What NFKD does not take apart.
_LETTERS = str.maketrans(
    {"ß": "ss", "ł": "l", "ı": "i", "ø": "o", "đ": "d", "æ": "ae", "œ": "oe", "ð": "d", "þ": "th"}
)

def fold(text: object) -> str:
    """Lower case, no accents, single spaces: `Größe ` is `grosse`."""
    lowered = normalise_word(text).translate(_LETTERS)
    plain = unicodedata.normalize("NFKD", lowered)
    return "".join(letter for letter in plain if not unicodedata.combining(letter))


def _folded(words: str) -> frozenset[str]:
    return frozenset(map(fold, words.split()))


YES_WORDS = _folded(
    "yes y true t 1 x + ja j oui o si s sim tak e evet var da d да ano igen kylla on joo nai ναι "
    "pozitif positive positiv pozytywny present vorhanden 是 有 naam aywa iya はい"
)
NO_WORDS = _folded(
    "no n false f 0 - nein non nao nie nee h hayir yok nej ne нет net nem ei oxi οχι "
    "negatif negative negativ negatywny absent 否 无 la tidak いいえ"
)
NONE_WORDS = NO_WORDS | _folded(
    "none nil normal nothing keine kein keiner keines unauffallig aucun aucune rien sans ninguno "
    "ninguna nada nessuno nessuna nenhum nenhuma geen brak zadne zadnych bez yoktur zadny zadna "
    "ingen inga inget intet nincs niciuna никаких отсутствует norma normale normaal normalny"
)

_MALE = _folded(
    "male man men boy masculine mannlich maennlich mann homme masculin hombre masculino maschio "
    "maschile uomo homem mezczyzna mezcz meski erkek bay мужской муж мужчина муж. muz muzsky ferfi "
    "barbat masculina manlig mand mies man mannelijk 男 αρρεν ανδρας"
)
_FEMALE = _folded(
    "female woman women girl feminine weiblich frau femme feminin mujer femenino femmina femminile "
    "donna mulher feminino kobieta zenski kobiet kadin bayan женский жен женщина жен. zena zensky "
    "no femeie femenina feminina kvinna kvinnlig kvinde kvinne nainen vrouw vrouwelijk 女 θηλυ γυναικα"
)
# Letters mean different sexes in different languages (Spanish m is mujer), so a pair decides:
# the first is male. The plain pairs speak for themselves, the others need a header that says sex.
_SEX_PAIRS = [("m", "f"), ("m", "w"), ("м", "ж"), ("m", "k"), ("e", "k"), ("m", "v"), ("h", "f"),
              ("h", "m"), ("u", "d"), ("f", "n"), ("b", "f"), ("m", "z"), ("э", "к")]  # fmt: skip
_PLAIN_PAIRS = frozenset({("m", "f"), ("m", "w"), ("м", "ж")})

_NORMAL = _folded(
    "normal normale normaal normalny normalna norma normalne healthy gesund sain sano sana saudavel "
    "zdrowy zdrowa saglikli control controls kontrolle kontrol норма здоров здоровый gezond frisk "
    "terve zdravy egeszseges normalbefund unauffallig 正常"
)
_STEMS: tuple[tuple[str, Label], ...] = (("osteoporo", "osteoporosis"), ("остеопор", "osteoporosis"), ("骨质疏松", "osteoporosis"),
          ("osteopen", "osteopenia"), ("остеопен", "osteopenia"), ("骨量减少", "osteopenia"))  # fmt: skip
_NOT = frozenset(
    "no non not without ohne kein keine sans sin senza bez nie brak nicht нет yok".split()
)


def tokens(text: object) -> list[str]:
    """Folded words of a name or header; `PatientAge_yrs` has three, and digits stand alone."""
    apart = re.sub(r"(?<=[^\W\d_A-Z])(?=[A-Z])", " ", str(text))
    return re.findall(r"[^\W\d_]+|\d+", fold(apart))


def yes_no(words: Collection[str]) -> dict[str, int]:
    """1 or 0 for the words that mean yes or no; empty unless there are both."""
    found = {}
    for word in words:
        plain = word if word in ("+", "-") else fold(word).rstrip(".!")
        if plain in YES_WORDS or plain in NO_WORDS:
            found[word] = int(plain in YES_WORDS)
    return found if len(set(found.values())) == 2 else {}


def sexes(words: Collection[str], *, header_says_sex: bool) -> dict[str, int]:
    """1 (female) or 0 for the words that mean a sex; empty unless there are both."""
    plain = {word: fold(word).rstrip(".") for word in words}
    letters = set(plain.values())
    for pair in _SEX_PAIRS:
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
        for stem, label in _STEMS:
            if word.startswith(fold(stem)):
                found.add(label)
        if word in _NORMAL:
            found.add("normal")
    if len(found) != 1 or (_NOT & set(words)):
        return None
    return found.pop()


def statuses(words: Collection[str]) -> dict[str, Label]:
    """The classes that can be read from the words; others are left out."""
    named = {word: bone_status(word) for word in words}
    return {word: label for word, label in named.items() if label is not None}


def shown(items: Mapping[str, object] | Collection[str], limit: int = 4) -> str:
    """A few items in quotes, for a comment or a message."""
    first = [repr(str(item)) for item in list(items)[:limit]]
    return ", ".join(first) + (", ..." if len(items) > limit else "")
