"""What a column's header means: a dictionary of clinical facts in several languages, with units."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from osteofusion.data.drafting.words import fold, tokens

Role = Literal["feature", "outcome"]


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
        role: Outcomes define or follow the label.
        why: What to tell about an outcome.
    """

    name: str
    whole: frozenset[str] = frozenset()
    stems: tuple[str, ...] = ()
    quantity: Quantity | None = None
    role: Role = "feature"
    why: str = ""


def _unit(name: str, scale: float, words: str) -> Unit:
    return Unit(name, scale, frozenset(map(fold, [name, *words.split()])))


_YEAR = "year years y yr yrs jahre jahren jahr j ans an annees anos ano anni jaar lata lat lat_a roky let yil sene лет года год ar vuotta 岁"
_MONTH = "month mo mon mos monate monat monaten mois meses mes mesi mese maanden mnd miesiace miesiac miesiecy miesiacach mies mc ay мес месяц месяцев месяцы manader maneder mesice kuukautta luni 月"
LENGTH = (
    _unit("m", 1.0, "meter meters metre metres metro metros metri metry mt mtr м metreler"),
    _unit("cm", 0.01, "centimeter centimeters centimetre centimetres zentimeter santim santimetre см centymetry"),
    _unit("inches", 0.0254, "in inch zoll pouces pulgadas cale"),
    _unit("feet", 0.3048, "ft foot"),
    _unit("mm", 0.001, "millimeter millimetre"),
)
MASS = (
    _unit("kg", 1.0, "kgs kilo kilos kilogram kilograms kilogramm кг"),
    _unit("pounds", 0.45359237, "lb lbs pound libras"),
)
TIME = (_unit("years", 1.0, _YEAR), _unit("months", 1 / 12, _MONTH))

AGE = Quantity("years", (15, 105), TIME, (15, 105))
HEIGHT = Quantity("m", (1.2, 2.2), LENGTH, (1.3, 2.0))
WEIGHT = Quantity("kg", (25, 250), MASS, (30, 115))
BMI = Quantity("kg/m2", (10, 70))
SCORE = Quantity("SD", (-8, 6))
MENOPAUSE = Quantity("years", (20, 65), TIME, (30, 60))
COUNT = Quantity("count", (0, 20))

_OUTCOME = "it defines or follows the bone status"
_FOLLOWS = "a treatment follows the diagnosis; make it a feature if it was given for something else"


def _concept(name: str, whole: str = "", stems: str = "", **more: object) -> Concept:
    phrases = frozenset(fold(phrase).strip() for phrase in whole.split(",")) - {""}
    return Concept(name, phrases, tuple(map(fold, stems.split())), **more)  # type: ignore[arg-type]


# In order: the first that fits counts, so that "age at menopause" is no age.
CONCEPTS = (
    _concept("family_history", stems="famil rodzin aile семей hereditar vererb mother mutter father parent eltern", whole="fh, fhx"),
    _concept("menopause_age", stems="menopaus menopoz menopauz menarche_no менопауз wechseljahr klimakter", quantity=MENOPAUSE),
    _concept("t_score", "t", "tscore tskor twert", quantity=SCORE, role="outcome", why="it defines the label"),
    _concept("z_score", "z", "zscore zskor zwert", quantity=SCORE, role="outcome", why=_OUTCOME),
    _concept("bmd", "bmd, bmc, dmo, kmy, kmd, мпк, мпкт, tbs, sos, bua",
             "bmd knochendicht knochenminer densit gestosc dxa dexa qct qus botdicht bentat bentet bentaeth yogunlug плотност denzit",
             role="outcome", why=_OUTCOME),
    _concept("frax", "fracture risk, frakturrisiko, risk of fracture, risque de fracture, riesgo de fractura, ryzyko zlaman, ryzyko zlamania, kirik riski",
             "frax", role="outcome", why="it is reckoned from what defines the label, often from the BMD"),
    _concept("treatment", "", "bisphosph bisphosfon bifosf bisfosf bifosfonat alendron risedron ibandron zoledron denosumab prolia fosamax teriparatid raloxifen romosozumab calcitonin osteopor_therap antiresorpt",
             role="outcome", why=_FOLLOWS),
    _concept("diagnosis", "label, class, klasse, classe, clase, target, ground truth, outcome, bone status, knochenstatus, group, gruppe, grupo, groupe, grupa, category, kategorie, klasa, sinif, status, класс, группа",
             "diagnos diagnoz rozpozn tani tanisi диагно befund osteopor osteopen остеопор остеопен 诊断", role="outcome", why=_OUTCOME),
    _concept("fracture_history", "", "fractur fraktur bruch knochenbruch zlaman kirik перелом frattur fratura breuk brud murtuma"),
    _concept("age", "age, alter, lebensalter, edad, eta, idade, leeftijd, wiek, yas, yasi, возраст, alder, ika, vek, eletkor, varsta, ηλικια, 年龄, umur", quantity=AGE),
    _concept("female", "sex, gender, geschlecht, sexe, sexo, sesso, genere, genre, genero, geslacht, plec, cinsiyet, cinsiyeti, пол, kon, kjonn, sukupuoli, pohlavi, nem, gen, φυλο, 性别"),
    _concept("height", "height, stature, groesse, grosse, koerpergroesse, korpergrosse, koerperhoehe, taille, altura, estatura, talla, altezza, statura, lengte, lichaamslengte, wzrost, boy, boyu, boy uzunlugu, рост, langd, hojde, pituus, vyska, magassag, inaltime, υψος, 身高, size, ht", quantity=HEIGHT),
    _concept("weight", "weight, gewicht, koerpergewicht, korpergewicht, poids, peso, peso corporeo, waga, masa ciala, masa, kilo, agirlik, vucut agirligi, вес, масса, масса тела, vikt, vaegt, vekt, paino, hmotnost, vaha, testsuly, greutate, βαρος, 体重, wt, body mass", quantity=WEIGHT),
    _concept("bmi", "bmi, body mass index, imc, kmi, vki, vucut kitle indeksi, имт, bki, koerpermasseindex, wskaznik bmi, quetelet", quantity=BMI),
    _concept("pregnancies", "parity, para, gravida, births, geburten, children, kinder", "pregnanc schwangerschaft grossesse embarazo gravidanz gravidez zwangerschap ciaz gebelik беременност", quantity=COUNT),
    _concept("smoker", "tabac, sigara, papierosy", "smok rauch fumeu fumad fumant fumat tabag tabaq tobacco nikotin palen palac papieros sigara курен курит roker rokare royker ryger tupak kourit kouren"),
    _concept("alcohol", "alkol", "alcohol alkohol alcool alkol алкогол"),
    _concept("diabetes", "dm, seker, cukrzyca", "diabet cukrzyc zuckerkrank диабет suikerziek"),
    _concept("hypothyroidism", "", "hypothyr hypothyreo hipotiroid hypotyreo schilddrusenunterf schilddruesenunterf"),
    _concept("steroids", "", "steroid glucocort glukokort kortison cortison kortizon sterydy prednis"),
    _concept("estrogen", "hrt, hormone replacement therapy, thm", "estrogen oestrogen ostrogen ostrojen"),
    _concept("dialysis", "", "dialys dializ диализ"),
)  # fmt: skip

_FILLERS = frozenset(map(fold, "patient patients patienten patientin pacjenta pacjent hasta hastanin пациента du de des della del la le les of the at in der des value wert wartosc index score at_scan".split())) - {"index", "score", "value", "wert"}  # fmt: skip
_SCORES = re.compile(
    r"\b([tz]) ?(score|wert|scor\w*|skor\w*|value|waarde|deger\w*|puntuacion|punteggio|indice|index|критерии|критери\w*)\b"
    r"|\b(?:score|wskaznik|wynik|indice|index|puntuacion|skor\w*|punteggio|критерии|wartosc|wert) ([tz])\b"
)
_SUPPLEMENT = re.compile(r"calcium|kalzium|kalsiyum|wapn|кальци|calcio|vitamin ?d|vit ?d|witamin\w* d|d vitamin\w*|витамин д")
_IDENTIFYING = frozenset(map(fold, "name nachname vorname nom prenom apellido apellidos nombre imie nazwisko soyad ad telefon phone tel address adresse adres address email mail имя фамилия фио адрес insurance pesel ssn 姓名".split()))  # fmt: skip
_BIRTH = re.compile(r"\b(birth|geburt\w*|naissance|nacimiento|nascita|nascimento|urodzenia|dogum|рождени\w*|dob|geboorte\w*)\b")
ID_WORDS = frozenset(map(fold, "id pid patid uid patient patienten subject case fall fallnummer pat kennung nummer nr no number code kod mrn record study identyfikator numer hasta numara sira dosya protokol пациент номер код identifiant codigo codice identificatie potilas 编号".split()))  # fmt: skip


def find_concept(header: str) -> Concept | None:
    """The clinical fact that a header names; None where we know none."""
    words = tokens(header)
    text = " ".join(words)
    found = _SCORES.search(text)
    if found:
        letter = found.group(1) or found.group(3)
        return next(concept for concept in CONCEPTS if concept.name == f"{letter}_score")
    for phrase in (text, " ".join(_core(words))):
        for concept in CONCEPTS:
            stems = any(word.startswith(concept.stems) for word in words) if concept.stems else False
            if phrase in concept.whole or stems:
                return concept
    return None


def find_unit(header: str, quantity: Quantity) -> Unit | None:
    """The unit that a header gives for a quantity."""
    words = set(tokens(header))
    return next((unit for unit in reversed(quantity.units) if words & unit.words), None)


def bracketed_unit(header: str) -> str | None:
    """What stands in brackets, where it could be a unit."""
    found = re.search(r"[(\[]\s*([^()\[\]\s]{1,12})\s*[)\]]\s*[:.]?\s*$", header)
    return found.group(1) if found and not found.group(1).isdigit() else None


def is_supplement(header: str) -> bool:
    """Whether a header speaks of calcium or vitamin D."""
    return bool(_SUPPLEMENT.search(" ".join(tokens(header))))


def names_a_person(header: str) -> bool:
    """Whether a header announces names, addresses or the like."""
    return bool(_IDENTIFYING & set(tokens(header)))


def is_birth(header: str) -> bool:
    """Whether a header speaks of a birth date or year."""
    return bool(_BIRTH.search(" ".join(tokens(header))))


def canonical_name(header: str) -> str:
    """A lower-case name of ASCII letters, digits and underscores; empty where nothing is left."""
    words = [word for word in tokens(re.sub(r"[(\[][^()\[\]]*[)\]]", " ", header)) if word.isascii()]
    name = "_".join(words)
    return f"n_{name}" if name[:1].isdigit() else name


def _core(words: list[str]) -> list[str]:
    units = frozenset().union(*(unit.words for group in (LENGTH, MASS, TIME) for unit in group))
    core = [word for word in words if word not in _FILLERS and word not in units]
    return core or words
