"""A manifest says what the files and columns of one data set mean.

Adding a hospital's data set means writing one YAML file. Every statement about a column (its unit,
its plausible range, whether it defines the label) stands there and nowhere in the code.
"""

from __future__ import annotations

import difflib
import functools
import os
import re
import unicodedata
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from osteofusion.errors import ManifestError
from osteofusion.resources import find_shipped, shipped_names

Label = Literal["normal", "osteopenia", "osteoporosis"]
LABELS: tuple[Label, ...] = ("normal", "osteopenia", "osteoporosis")

# Columns of the cohort table itself, and of what it is joined from.
REGION = "region"
RESERVED = frozenset(
    {"subject_id", "image", "image_sha256", "group", "site", REGION, "label"}
    | {"folder_label", "split", "fold", "repeat", "row"}
)

Kind = Literal["numeric", "binary", "categorical", "presence", "text"]
Role = Literal["feature", "outcome", "identifier", "ignored"]


_ONLY_FOR = {
    "unit": "numeric",
    "scale": "numeric",
    "range": "numeric",
    "at_most": "numeric",
    "absent": "presence",
}
_DICOM_KINDS = {
    "age": "numeric",
    "female": "binary",
    "laterality": "categorical",
    "body_part": "categorical",
}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _one_group(value: str) -> str:
    try:
        groups = re.compile(value).groups
    except re.error as error:
        raise ValueError(f"{value!r} is not a regular expression: {error}") from None
    if groups < 1:
        raise ValueError(f"{value!r} needs one group, such as '(.+)', that holds the ID")
    return value


_ALL = r"(.+)"
IdPattern = Annotated[str, AfterValidator(_one_group)]


class Column(_Strict):
    """One column of the clinical table.

    Attributes:
        header: Header in the file, or several accepted ones; the canonical name when left out.
        kind: ``numeric``; ``binary`` (0/1); ``categorical``; ``presence`` (free text where a word
            of `absent` means 0 and anything else 1); ``text``, which is never a feature.
        role: ``feature``; ``outcome`` (defines or follows the label: can never be a feature);
            ``identifier``; ``ignored``.
        unit: Canonical unit, after `scale`.
        scale: Factor from the file's unit to the canonical unit.
        range: Plausible lowest and highest value in canonical units; others count as missing.
        values: Canonical value of each spelling: 0 or 1 for binary, a word for categorical.
        absent: Words that mean "none" in a presence column.
        at_most: Name of a numeric column that this one cannot exceed.
        only_if: Values of other columns without which this one makes no sense.
        dicom: Fact of the DICOM header that fills empty cells: ``age`` (years), ``female``,
            ``laterality`` or ``body_part``.
    """

    header: str | list[str] | None = None
    kind: Kind
    role: Role = "feature"
    unit: str | None = None
    scale: Annotated[float, Field(gt=0)] = 1.0
    range: tuple[float, float] | None = None
    values: dict[str, str | float] = {}
    absent: list[str] = ["no", "none", "0", "false"]
    at_most: str | None = None
    only_if: dict[str, float] = {}
    dicom: Literal["age", "female", "laterality", "body_part"] | None = None

    @field_validator("values", mode="before")
    @classmethod
    def _words(cls, value: object) -> object:
        return _normalise_keys(value)

    @model_validator(mode="after")
    def _consistent(self) -> Column:
        if self.kind == "text" and self.role == "feature":
            raise ValueError(
                "a text column cannot be a feature; use kind presence or categorical, "
                "or role ignored"
            )
        if self.range is not None and self.range[0] >= self.range[1]:
            raise ValueError(f"range {list(self.range)} is empty; give [lowest, highest]")
        for value in self.values.values():
            if self.kind in ("binary", "presence"):
                if value not in (0.0, 1.0):
                    raise ValueError(f"{self.kind} values must be 0 or 1, not {value!r}")
            elif isinstance(value, str) == (self.kind == "numeric"):
                wanted = "numbers" if self.kind == "numeric" else "words (put it in quotes)"
                raise ValueError(f"{self.kind} values must be {wanted}, not {value!r}")
        for key, kind in _ONLY_FOR.items():
            if key in self.model_fields_set and self.kind != kind:
                raise ValueError(f"{key} is for {kind} columns, and this one is {self.kind}")
        if self.dicom is not None and self.kind != (needed := _DICOM_KINDS[self.dicom]):
            raise ValueError(f"dicom {self.dicom} fills {needed} columns; this one is {self.kind}")
        if self.dicom == "female" and self.values.get("female", self.values.get("f", 1.0)) != 1.0:
            raise ValueError("dicom female is 1 for a woman, and `values` says otherwise")
        if self.dicom == "age" and self.unit != "years":
            raise ValueError("dicom age is in years, so the column's unit must be years")
        return self

    def headers(self, name: str) -> list[str]:
        """Accepted headers, the canonical name last."""
        given = [self.header] if isinstance(self.header, str) else list(self.header or [])
        return [*given, name]


class Table(_Strict):
    """The clinical spreadsheet: xlsx, xls, csv, tsv or parquet, relative to the root.

    Attributes:
        file: The file.
        id: Header of the subject ID.
        id_pattern: Regular expression on the ID's cell; its groups, joined, are the subject ID.
        sheet: Sheet of a workbook; the first one when left out.
        delimiter: Between cells of a text file; a comma (a tab in .tsv) when left out.
        decimal: Decimal mark of numbers that are text.
        encoding: Of a text file.
    """

    file: str
    id: str
    id_pattern: IdPattern = _ALL
    sheet: str | None = None
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    decimal: Literal[".", ","] = "."
    encoding: str = "utf-8-sig"


class Images(_Strict):
    """Where the radiographs are.

    Attributes:
        layout: ``class_folders`` (one folder a class), ``folder`` (all in one folder) or
            ``column`` (a table column holds the path).
        folders: Label of each class folder.
        folder: The folder of layout ``folder``, relative to the root; or a DICOMDIR, which lists
            the files.
        column: Header of the path column of layout ``column``.
        id: Where the subject ID stands: in the file's ``name``, or in a DICOM ``header``
            (PatientID).
        id_pattern: Regular expression on the file's stem or the PatientID; its groups, joined, are
            the subject ID.
    """

    layout: Literal["class_folders", "folder", "column"]
    folders: dict[str, Label] = {}
    folder: str = "."
    column: str | None = None
    id: Literal["name", "header"] = "name"
    id_pattern: IdPattern = _ALL

    @model_validator(mode="after")
    def _complete(self) -> Images:
        if self.layout == "class_folders" and not self.folders:
            raise ValueError("layout class_folders needs `folders`, the label of each folder")
        if self.layout == "column" and not self.column:
            raise ValueError("layout column needs `column`, the header of the path column")
        if self.layout == "column" and self.id == "header":
            raise ValueError("layout column takes the ID from the table; leave `id: header` out")
        return self


class LabelSource(_Strict):
    """Where the label comes from: a column, else the T-score by the WHO thresholds.

    Attributes:
        column: Header of the label column.
        values: Canonical class of each spelling that is not a class name itself.
        t_score: Canonical name of the T-score column, read where `column` gives nothing.
        file: A separate label file (CSV), relative to the root.
        id: Header of the subject ID in `file`.
    """

    column: str | None = None
    values: dict[str, Label] = {}
    t_score: str | None = None
    file: str | None = None
    id: str = "id"

    @field_validator("values", mode="before")
    @classmethod
    def _words(cls, value: object) -> object:
        return _normalise_keys(value)


class Expected(_Strict):
    """Counts that the published data set has; a copy that differs is reported."""

    rows: int | None = None
    radiographs: int | None = None
    labels: dict[Label, int] = {}


class Manifest(_Strict):
    """One data set: files, columns, units, roles, licence.

    Read with :func:`load_manifest`, which turns every mistake into one sentence. A data set may
    lack the table or the images, not both.

    `splits` is a file of canonical folds beside the manifest, so that studies of the data set can
    be compared. `synthetic` says that no patient stands behind the data; `synthetic_labels` that
    the labels alone are invented, as a label file may say of itself too.
    """

    name: str
    title: str
    site: str | None = None
    region: str
    license: str
    citation: str
    doi: str | None = None
    url: str | None = None
    note: str | None = None
    synthetic: bool = False
    synthetic_labels: bool = False
    images: Images | None = None
    table: Table | None = None
    label: LabelSource = LabelSource()
    columns: dict[str, Column] = {}
    expected: Expected = Expected()
    splits: str | None = None

    @field_validator("region")
    @classmethod
    def _one_spelling(cls, value: str) -> str:
        return normalise_word(value)

    @model_validator(mode="after")
    def _refers_to_its_columns(self) -> Manifest:
        for name, column in self.columns.items():
            if name in RESERVED:
                raise ValueError(f"columns.{name}: the name is reserved for the cohort table")
            for other in [column.at_most, *column.only_if]:
                if other is None:
                    continue
                if other not in self.columns:
                    raise ValueError(f"columns.{name} refers to {other!r}, which is no column")
                if self.columns[other].kind in ("categorical", "text"):
                    raise ValueError(f"columns.{name} refers to {other!r}, which holds no numbers")
        score = self.label.t_score
        if score is not None:
            if score not in self.columns:
                raise ValueError(f"label.t_score refers to {score!r}, which is no column")
            if self.columns[score].role != "outcome":
                raise ValueError(f"columns.{score} defines the label, so its role is outcome")
        if self.images is None and self.table is None:
            raise ValueError("a data set needs `images`, `table` or both")
        folders = self.images is not None and self.images.folders
        if self.label.column is None and score is None and not folders:
            raise ValueError("label needs `column` or `t_score`, or images class folders")
        if self.table is None:
            self._stands_without_a_table()
        return self

    def _stands_without_a_table(self) -> None:
        assert self.images is not None
        if self.images.layout == "column":
            raise ValueError("images.layout column needs `table`, which has the column")
        if self.label.file is None and not self.images.folders:
            raise ValueError("without `table` the label needs `file`, or images class folders")
        for name, column in self.columns.items():
            if column.dicom is None:
                raise ValueError(f"columns.{name} needs `table`, or `dicom` to fill it")
        if self.label.file is None and self.label.column is not None:
            raise ValueError("label.column needs `table` or label.file, which has the column")

    @property
    def site_name(self) -> str:
        """The site, which is the data set itself unless it says otherwise."""
        return self.site or self.name

    @property
    def synthetic_what(self) -> str:
        """What of the data is synthetic, for a banner; empty where nothing is."""
        if self.synthetic:
            return "SYNTHETIC DEMO DATA: no patient stands behind it"
        if self.synthetic_labels:
            return "SYNTHETIC LABELS: real radiographs, and invented answers"
        return ""

    def with_synthetic_labels(self) -> Manifest:
        """The manifest of the same data with labels that are invented."""
        return self.model_copy(
            update={
                "synthetic_labels": True,
                "title": f"{self.title}, with SYNTHETIC LABELS",
                "citation": f"{self.citation} The labels are SYNTHETIC and not of that source.",
            }
        )

    @property
    def features(self) -> list[str]:
        """Canonical names of all columns whose role is feature, in the manifest's order."""
        return [name for name, column in self.columns.items() if column.role == "feature"]

    def layout(self) -> str:
        """The expected files under the root, for a message."""
        images = self.images
        lines = [f"  {self.table.file}"] if self.table is not None else []
        if images is not None and images.layout == "class_folders":
            lines += [f"  {folder}/*.jpg, *.png ..." for folder in images.folders]
        elif images is not None and images.layout == "folder":
            lines.append(f"  {images.folder}/*.png, *.jpg ...")
        if self.label.file is not None:
            lines.append(f"  {self.label.file}  (columns {self.label.id}, {self.label.column})")
        return "\n".join(lines)


def load_manifest(name_or_path: str | os.PathLike[str]) -> Manifest:
    """Read and validate a manifest: a file, or the name of a shipped one.

    Raises:
        ManifestError: the file is missing, no YAML, or a key or value is wrong.
    """
    path = Path(name_or_path)
    if not path.is_file():
        shipped = find_shipped("manifests", str(name_or_path))
        if shipped is None:
            known = [name.removesuffix(".yaml") for name in shipped_names("manifests")]
            close = difflib.get_close_matches(str(name_or_path), known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ManifestError(
                f"Manifest {str(name_or_path)!r} is neither a file nor one of ours "
                f"({', '.join(known)}).{hint}"
            )
        path = shipped
    try:
        content: Any = yaml.load(path.read_text(encoding="utf-8"), Loader=StrictLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" near line {where.line + 1}" if where is not None else ""
        problem = getattr(error, "problem", None) or "it is no UTF-8 text"
        raise ManifestError(f"Manifest {path} is not valid YAML{line}: {problem}.") from None
    if not isinstance(content, dict):
        raise ManifestError(f"Manifest {path} holds no `key: value` lines; see the shipped ones.")
    if isinstance(content.get("splits"), str):
        content["splits"] = str(path.resolve().parent / content["splits"])
        if not Path(content["splits"]).is_file():
            raise ManifestError(
                f"Manifest {path}: splits {content['splits']} is no file; give its path relative "
                "to the manifest, or remove the line."
            )
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        raise ManifestError(_sentence(path, error)) from None


def normalise_header(text: object) -> str:
    """Header as compared: no case, no repeated spaces, no trailing punctuation."""
    plain = unicodedata.normalize("NFKC", str(text)).casefold()
    return " ".join(plain.split()).rstrip(" :;.,*?")


def normalise_id(value: object) -> str:
    """Subject ID as compared: text without surrounding space; 1377.0 is 1377."""
    text = unicodedata.normalize("NFC", str(value)).strip()
    if text.endswith(".0"):  # an export of whole numbers beside empty cells
        return re.sub(r"^(\d+)\.0$", r"\1", text)
    return text


def subject_id(value: object, pattern: str) -> str:
    """Subject ID in a cell or a file's stem: the groups of `pattern`, else all of it."""
    text = normalise_id(value)
    if pattern == _ALL:
        return text
    match = _compiled(pattern).search(text)
    found = "".join(filter(None, match.groups())) if match else ""
    return text if found in ("", text) else normalise_id(found)


@functools.lru_cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.DOTALL)  # a name may hold a line break


def normalise_word(text: object) -> str:
    """A cell's word as compared: no case, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", str(text)).casefold().split())


def _normalise_keys(value: object) -> object:
    if isinstance(value, dict):
        return {normalise_word(key): item for key, item in value.items()}
    return value


class StrictLoader(yaml.SafeLoader):
    """YAML in which yes, no, true and false stay the words that stand in the cells.

    No key of a manifest but `synthetic` is a truth value, and pydantic reads the word there.
    A key given twice is an error: plain YAML would keep the last and drop the first in silence.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping; refuses a key given twice."""
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key.value!r} is given twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _sentence(path: Path, error: ValidationError) -> str:
    # Of a union each member complains, and puts its type in the location; the deepest says most.
    first = max(error.errors(include_url=False), key=lambda item: len(item["loc"]))
    members = ("str", "float", "list[str]")
    key = ".".join(str(part) for part in first["loc"] if part not in members)
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = " is not a key that a manifest knows"
    elif first["type"] == "missing":
        message = " is missing"
    else:
        shown = first.get("input")
        message = f": {message}" if isinstance(shown, (dict, list)) else f" is {shown!r}: {message}"
    return f"Manifest {path}{': ' if key else ''}{key}{message}."
