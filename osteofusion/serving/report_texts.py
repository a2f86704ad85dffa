"""The words of a patient report that a clinic may choose: what to do, by triage band."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    StringConstraints,
    ValidationError,
)

from osteofusion.data.manifest import StrictLoader
from osteofusion.errors import ConfigError
from osteofusion.serving.prediction import Band

DEFAULTS = Path(__file__).with_suffix(".yaml")
_CONDITION = "{condition}"


def _known_placeholder(text: str) -> str:
    for found in re.findall(r"\{[^{}]*\}", text):
        if found != _CONDITION:
            raise ValueError(f"{found} means nothing; the one placeholder is {_CONDITION}")
    return text


Words = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=1200),
    AfterValidator(_known_placeholder),
]


class ReportTexts(BaseModel):
    """Recommendations of a patient report; ``{condition}`` stands for what the model looks for.

    Attributes:
        rule_out: Below the lower threshold.
        dxa: Between the two.
        rule_in: At or above the upper one.
        no_band: Where the model has no triage.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule_out: Words
    dxa: Words
    rule_in: Words
    no_band: Words

    def recommendation(self, band: Band | None, condition: str) -> str:
        """What to do about a patient in that band."""
        text: str = getattr(self, band or "no_band")
        text = text.replace(_CONDITION, condition)
        return text[0].upper() + text[1:]


def load_texts(path: Path | None = None) -> ReportTexts:
    """Read and validate the texts of a YAML file; default: those that ship with the package.

    Raises:
        ConfigError: The file cannot be read, is no YAML, or a text is missing, unknown or wrong.
    """
    path = path or DEFAULTS
    try:
        content: Any = yaml.load(path.read_text(encoding="utf-8"), Loader=StrictLoader)
    except OSError as error:
        raise ConfigError(
            f"Recommendations {path} cannot be read ({error.strerror}); give a YAML file."
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" near line {where.line + 1}" if where is not None else ""
        problem = getattr(error, "problem", None) or "it is no UTF-8 text"
        raise ConfigError(f"Recommendations {path} are not valid YAML{line}: {problem}.") from None
    if not isinstance(content, dict):
        raise ConfigError(
            f"Recommendations {path} hold no `band: text` lines; give a text for each of "
            f"{', '.join(ReportTexts.model_fields)}."
        )
    try:
        return ReportTexts.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"Recommendations {path}: {_sentence(error)}") from None


def _sentence(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    key = ".".join(map(str, first["loc"]))
    if first["type"] == "missing":
        return f"{key} is missing; every band needs its text."
    if first["type"] == "extra_forbidden":
        return f"{key} is no band; they are {', '.join(ReportTexts.model_fields)}."
    message = first["msg"].removeprefix("Value error, ")
    return f"{key} cannot be used: {message[0].lower()}{message[1:]}."
