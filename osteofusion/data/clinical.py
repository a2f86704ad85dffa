"""Clinical cells to numbers: parsing, the feature schema, and frozen preprocessing."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from osteofusion.data.manifest import Column, Manifest, normalise_word
from osteofusion.data.table import distinct_cells
from osteofusion.errors import CohortError, ConfigError

if TYPE_CHECKING:  # else imported where something is fitted: a prediction needs no scikit-learn
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.preprocessing import MinMaxScaler, StandardScaler

MISSING_WORDS = frozenset(  # also as clinics outside English write them
    {"", "na", "n/a", "nan", "null", "-", "--", "?", "unknown", "missing", "not known"}
    | {"k.a.", "k. a.", "unbekannt", "inconnu", "inconnue", "n.c.", "desconocido", "desconocida"}
    | {"sconosciuto", "desconhecido", "onbekend", "brak danych", "b.d.", "nieznany", "nieznane"}
    | {"bilinmiyor", "неизвестно", "нет данных", "н/д", "n.d.", "okänt", "ukendt", "ukjent", "未知"}
)
YES_NO = {"yes": 1.0, "y": 1.0, "true": 1.0, "1": 1.0, "no": 0.0, "n": 0.0, "false": 0.0, "0": 0.0}
_NUMBER = {  # by decimal mark; the other one would be a thousands separator: no guess
    mark: re.compile(rf"[+-]?(\d+\{mark}?\d*|\{mark}\d+)(e[+-]?\d+)?") for mark in ".,"
}
_LARGEST = 1e15  # beyond it the square of a column's spread leaves float32
Scaling = Literal["standard", "minmax"]
RARE = 5  # categories seen in fewer training rows share the "other" bucket


@dataclass(frozen=True)
class CellProblem:
    """One cell that cannot be used and counts as missing."""

    subject_id: str
    column: str
    row: int
    value: str
    reason: str


def parse_column(
    cells: pd.Series, ids: pd.Series, name: str, column: Column, decimal: str = "."
) -> tuple[pd.Series, list[CellProblem], list[CellProblem]]:
    """Canonical values of one column; cells that cannot be used are NaN (None for words).

    Args:
        cells: Raw cells, indexed by spreadsheet row.
        ids: Subject ID of each row, same index.
        name: Canonical name.
        column: What the manifest says of it.
        decimal: Decimal mark of text cells.

    Returns:
        The values, the unparsable cells and the implausible cells.
    """
    codes, distinct = distinct_cells(cells)
    # The last value is that of empty cells, whose code is -1.
    values: list[str | float | None] = [None] * (len(distinct) + 1)
    unparsable: dict[int, str] = {}
    implausible: dict[int, str] = {}
    for code, cell in enumerate(distinct):
        try:
            value = parse_cell(cell, column, decimal)
        except (ValueError, OverflowError) as error:
            unparsable[code] = str(error)
            continue
        if column.range is not None and isinstance(value, float):
            low, high = column.range
            if not low <= value <= high:
                unit = f" {column.unit}" if column.unit else ""
                implausible[code] = f"outside {low:g} to {high:g}{unit}"
                continue
        values[code] = value
    dtype: Any = object if column.kind in ("categorical", "text") else np.float64
    parsed = pd.Series(np.array(values, dtype=dtype)[codes], index=cells.index, dtype=dtype)

    def problems(reasons: dict[int, str]) -> list[CellProblem]:
        wrong = np.isin(codes, list(reasons))
        where = zip(ids[wrong], cells.index[wrong], cells[wrong], codes[wrong], strict=True)
        return [
            CellProblem(str(subject), name, int(row), str(cell), reasons[code])
            for subject, row, cell, code in where
        ]

    return parsed, problems(unparsable), problems(implausible)


def parse_cell(cell: object, column: Column, decimal: str = ".") -> str | float | None:
    """Canonical value of a cell; None where it says that the value is missing.

    Args:
        cell: What stands in it.
        column: What the manifest says of its column; the plausible range is not looked at.
        decimal: Decimal mark of text cells.

    Raises:
        ValueError: it cannot be read, or is not finite.
        OverflowError: likewise.
    """
    if isinstance(cell, (bool, np.bool_)):
        word = "true" if cell else "false"
    elif isinstance(cell, (float, np.floating)) and float(cell).is_integer():
        word = str(int(cell))
    else:
        word = normalise_word(cell)
    if word in column.values:
        value = column.values[word]
        return value if column.kind in ("categorical", "text") else float(value)
    if column.kind == "presence":
        absent = {normalise_word(item) for item in column.absent}
        if word in absent:
            return 0.0
        return None if word in MISSING_WORDS else 1.0
    if word in MISSING_WORDS:
        return None
    if column.kind in ("categorical", "text"):
        return word
    if column.kind == "binary":
        if column.values or word not in YES_NO:
            known = ", ".join(column.values or ("yes", "no"))
            raise ValueError(f"is none of {known}")
        return YES_NO[word]
    if isinstance(cell, (int, float, np.number)) and not isinstance(cell, bool):
        number = float(cell)
    else:
        if not _NUMBER[decimal].fullmatch(word):
            raise ValueError(f"is not a number with decimal {decimal!r}")
        number = float(word.replace(decimal, "."))
    number *= column.scale
    if not abs(number) < _LARGEST:
        finite = math.isfinite(number)
        raise ValueError("is far too large" if finite else "is not a finite number")
    return number


def cross_check(table: pd.DataFrame, manifest: Manifest) -> list[CellProblem]:
    """Set cells that contradict another column to NaN, in place, and return them.

    The rules are the manifest's `at_most` and `only_if`; the index is the spreadsheet row.
    """
    problems: list[CellProblem] = []
    for name, column in manifest.columns.items():
        if name not in table:
            continue
        reasons: dict[int, str] = {}  # by row; of several the last one is told
        if column.at_most is not None and column.at_most in table:
            wrong = table[name] > table[column.at_most]
            reasons |= dict.fromkeys(table.index[wrong], f"exceeds {column.at_most}")
        for other, wanted in column.only_if.items():
            if other in table:
                wrong = table[name].notna() & table[other].notna() & (table[other] != wanted)
                reason = f"given although {other} is not {wanted:g}"
                reasons |= dict.fromkeys(table.index[wrong], reason)
        rows = sorted(reasons)
        for row, subject, value in table.loc[rows, ["subject_id", name]].itertuples(name=None):
            shown = f"{value:g}" if isinstance(value, float) else str(value)
            problems.append(CellProblem(str(subject), name, int(row), shown, reasons[row]))
        table.loc[rows, name] = None
    return problems


@dataclass(frozen=True)
class Feature:
    """One input of the clinical encoder.

    Attributes:
        name: Canonical name.
        kind: numeric, binary, categorical or presence.
        unit: Canonical unit.
        range: Plausible lowest and highest value, in that unit.
        vocabulary: Words of a categorical feature; the code is the position.
    """

    name: str
    kind: str
    unit: str | None = None
    range: tuple[float, float] | None = None
    vocabulary: tuple[str, ...] = ()

    def code(self, value: float | str) -> float:
        """A value as the matrix holds it: the code of a word, a number as it is."""
        if self.kind != "categorical":
            return float(value)
        known = value in self.vocabulary
        return float(self.vocabulary.index(str(value)) if known else len(self.vocabulary))


@dataclass(frozen=True)
class ClinicalSchema:
    """The features in order; turns cohort tables into the matrix that a model reads."""

    features: tuple[Feature, ...]

    @classmethod
    def fit(cls, train: pd.DataFrame, manifest: Manifest, names: Sequence[str]) -> ClinicalSchema:
        """Schema of the named features; vocabularies come from the training rows.

        Raises:
            CohortError: a feature has no value in any training row.
        """
        features = []
        for name in names:
            column = manifest.columns[name]
            if name not in train or train[name].isna().all():
                raise CohortError(
                    f"Column {name!r} has no usable value in the {len(train)} training rows; "
                    "leave it out of data.features or correct its manifest entry."
                )
            words = sorted(train[name].dropna().unique()) if column.kind == "categorical" else []
            features.append(Feature(name, column.kind, column.unit, column.range, tuple(words)))
        return cls(tuple(features))

    @property
    def names(self) -> list[str]:
        """Names in the matrix' order."""
        return [feature.name for feature in self.features]

    def encode(self, table: pd.DataFrame) -> np.ndarray:
        """Matrix (n, F) float64: canonical units, NaN for missing, codes for categories.

        A word outside the vocabulary gets the code ``len(vocabulary)``. A column that the table
        lacks is missing in every row.
        """
        matrix = np.full((len(table), len(self.features)), np.nan)
        for j, feature in enumerate(self.features):
            if feature.name not in table:
                continue
            column = table[feature.name]
            if feature.kind == "categorical":
                codes = {word: float(code) for code, word in enumerate(feature.vocabulary)}
                unseen = float(len(feature.vocabulary))
                column = column.map(codes).fillna(unseen).where(column.notna())
            matrix[:, j] = column.to_numpy(dtype=np.float64, na_value=np.nan)
        return matrix

    def refuse_other_meaning(self, manifest: Manifest) -> None:
        """Refuse a data set whose columns do not mean what they meant in training.

        Raises:
            CohortError: a feature's kind or unit differs.
        """
        for feature in self.features:
            column = manifest.columns.get(feature.name)
            if column is None or (column.kind, column.unit) == (feature.kind, feature.unit):
                continue
            raise CohortError(
                f"Column {feature.name!r} is {column.kind} in {column.unit or 'no unit'} in "
                f"manifest {manifest.name}, and the model was trained with {feature.kind} in "
                f"{feature.unit or 'no unit'}; correct it there (scale converts units)."
            )

    def to_dict(self) -> list[dict[str, Any]]:
        """Plain values, as stored in a checkpoint."""
        return [
            {
                **dataclasses.asdict(feature),
                "range": list(feature.range) if feature.range is not None else None,
                "vocabulary": list(feature.vocabulary),
            }
            for feature in self.features
        ]

    @classmethod
    def from_dict(cls, content: Sequence[dict[str, Any]]) -> ClinicalSchema:
        """The inverse of :meth:`to_dict`."""
        return cls(
            tuple(
                Feature(
                    item["name"],
                    item["kind"],
                    item["unit"],
                    None if item["range"] is None else (item["range"][0], item["range"][1]),
                    tuple(item["vocabulary"]),
                )
                for item in content
            )
        )


def select_features(manifest: Manifest, chosen: Sequence[str] | None) -> list[str]:
    """The chosen features, or all whose role is feature.

    Raises:
        ConfigError: a name is unknown, or its role forbids it.
    """
    if chosen is None:
        return manifest.features
    if len(set(chosen)) < len(chosen) or not chosen:
        raise ConfigError("data.features must name at least one column, and each once.")
    for name in chosen:
        if name not in manifest.columns:
            raise ConfigError(
                f"data.features names {name!r}, which manifest {manifest.name!r} does not have; "
                f"its features are {', '.join(manifest.features)}."
            )
        role = manifest.columns[name].role
        if role == "outcome":
            raise ConfigError(
                f"data.features names {name!r}, an outcome: it defines or follows the label, and "
                "a model that reads it reads the answer; leave it out."
            )
        if role != "feature":
            raise ConfigError(
                f"data.features names {name!r}, whose role in manifest {manifest.name!r} is "
                f"{role}; leave it out or change its role there."
            )
    return list(chosen)


def fit_preprocessing(
    matrix: np.ndarray, schema: ClinicalSchema, scaling: Scaling = "standard"
) -> ColumnTransformer:
    """Fit imputation, missing indicators, scaling and one-hot on training rows.

    Median (numeric) or most frequent (others) imputation, an indicator for each column with
    missing training cells, scaled numeric columns, and one-hot codes in which categories rarer
    than `RARE` rows, and at inference unseen ones, share one bucket.

    Args:
        matrix: (n, F) float64 from :meth:`ClinicalSchema.encode`, training rows only.
        schema: The schema of its columns.
        scaling: ``standard`` brings numeric columns to mean 0 and variance 1, ``minmax`` the
            training rows to [0, 1]; later rows may lie outside.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import MissingIndicator
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler

    scaler = {"standard": StandardScaler, "minmax": MinMaxScaler}[scaling]
    kinds = [feature.kind for feature in schema.features]
    numeric = [i for i, kind in enumerate(kinds) if kind == "numeric"]
    binary = [i for i, kind in enumerate(kinds) if kind in ("binary", "presence")]
    words = [i for i, kind in enumerate(kinds) if kind == "categorical"]
    onehot = OneHotEncoder(
        min_frequency=RARE, handle_unknown="infrequent_if_exist", sparse_output=False
    )
    transformer = ColumnTransformer(
        [
            (
                "numeric",
                Pipeline([("fill", _imputer("median")), ("scale", scaler())]),
                numeric,
            ),
            ("binary", _imputer("most_frequent"), binary),
            ("missing", MissingIndicator(error_on_new=False), list(range(len(kinds)))),
            ("words", Pipeline([("fill", _imputer("most_frequent")), ("onehot", onehot)]), words),
        ],
        sparse_threshold=0.0,
    )
    return transformer.fit(matrix)


def freeze(transformer: ColumnTransformer, schema: ClinicalSchema) -> dict[str, Any]:
    """The fitted preprocessing as plain numbers, for a model's hyperparameters.

    Keys: `features`, `fill` (one value a column), `numeric` (columns, mean, scale),
    `indicators` (columns), `one_hot` (source column and codes of each output), `names`.
    """
    parts = {name: (step, columns) for name, step, columns in transformer.transformers_}
    fill = [0.0] * len(schema.features)
    columns: list[int] = []
    mean: list[float] = []
    scale: list[float] = []
    one_hot_columns: list[int] = []
    one_hot_codes: list[list[float]] = []
    names: list[str] = []
    one_hot_names: list[str] = []

    def learn_fill(imputer: SimpleImputer, where: list[int]) -> None:
        for i, value in zip(where, imputer.statistics_, strict=True):
            fill[i] = float(value)

    numeric, where = parts["numeric"]
    if where:
        learn_fill(numeric["fill"], where)
        columns += where
        centre, width = _centre_and_width(numeric["scale"])
        mean += centre
        scale += width
    binary, where = parts["binary"]
    if where:
        learn_fill(binary, where)
        columns += where
        mean += [0.0] * len(where)
        scale += [1.0] * len(where)
    names += [schema.names[i] for i in columns]
    # scikit-learn does not fit a step without columns.
    indicators = [int(i) for i in parts["missing"][0].features_] if schema.features else []
    names += [f"{schema.names[i]} missing" for i in indicators]
    words, where = parts["words"]
    if where:
        learn_fill(words["fill"], where)
        encoder = words["onehot"]
        for position, i in enumerate(where):
            feature = schema.features[i]
            rare = encoder.infrequent_categories_[position]
            rare_codes = [] if rare is None else rare.tolist()
            frequent = [c for c in encoder.categories_[position].tolist() if c not in rare_codes]
            for code in frequent:
                one_hot_columns.append(i)
                one_hot_codes.append([code])
                one_hot_names.append(f"{feature.name} = {feature.vocabulary[int(code)]}")
            if rare_codes:
                every = map(float, range(len(feature.vocabulary) + 1))  # the last one is "unseen"
                one_hot_columns.append(i)
                one_hot_codes.append([code for code in every if code not in frequent])
                one_hot_names.append(f"{feature.name} = any other")
    return {
        "features": schema.names,
        "fill": fill,
        "numeric": {"columns": columns, "mean": mean, "scale": scale},
        "indicators": indicators,
        "one_hot": {"columns": one_hot_columns, "codes": one_hot_codes},
        "names": names + one_hot_names,
    }


def _centre_and_width(scaler: StandardScaler | MinMaxScaler) -> tuple[list[float], list[float]]:
    """What a scaler subtracts from each column, and what it then divides it by."""
    if hasattr(scaler, "data_min_"):  # its own scale_ is the reciprocal
        return scaler.data_min_.tolist(), (1 / scaler.scale_).tolist()
    return scaler.mean_.tolist(), scaler.scale_.tolist()


def _imputer(strategy: str) -> SimpleImputer:
    from sklearn.impute import SimpleImputer

    return SimpleImputer(strategy=strategy, keep_empty_features=True)
