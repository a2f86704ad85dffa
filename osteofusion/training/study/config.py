"""What a study consists of, as its YAML file says it."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from osteofusion.errors import ConfigError
from osteofusion.resources import find_shipped, shipped_names

Arm = Literal["fused", "image", "tabular"]
Share = Annotated[float, Field(gt=0, lt=1)]
VariantName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.]+$")]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ExecutorSettings(_Strict):
    """Where cells run.

    Attributes:
        name: ``local`` processes, or tasks of ``ray``.
        workers: Cells at a time.
        cpus_per_cell: Threads of a cell; default: the processors divided among the workers.
        gpus_per_cell: GPUs that a cell declares to Ray; local cells share what the machine shows.
        address: A running Ray cluster, which sees the same files; default: Ray on this machine.
    """

    name: Literal["local", "ray"] = "local"
    workers: int = Field(default=1, ge=1)
    cpus_per_cell: int | None = Field(default=None, ge=1)
    gpus_per_cell: float = Field(default=0, ge=0)
    address: str | None = None

    @property
    def threads(self) -> int:
        """Threads of a cell."""
        return self.cpus_per_cell or max(1, (os.cpu_count() or 1) // self.workers)


class Study(_Strict):
    """Variants x arms x seeds x repeats x folds of one base config.

    Attributes:
        config: Base config of every cell: a file, or the name of a shipped one.
        settings: Settings of every cell, by dotted key.
        arms: Arms to train.
        folds: Number of folds, ``canonical`` (the manifest's own) or ``sites``; default: canonical
            where the manifest has folds, else 5.
        repeats: Repetitions of the folds; default: all of a file of folds, else 1.
        seeds: Seeds of training.
        variants: Name of a variant to the settings in which it differs, by dotted key.
        executor: Where cells run.
        prevalence: Shares of low bone density at which decisions are weighed.
        audits: Audit the result.
        calibrate: Calibrate each fold's probabilities on the other folds.
    """

    config: str
    settings: dict[str, Any] = Field(default_factory=dict)
    arms: list[Arm] = Field(default=["image", "tabular", "fused"], min_length=1)
    folds: Annotated[int, Field(ge=2)] | Literal["canonical", "sites"] | None = None
    repeats: int | None = Field(default=None, ge=1)
    seeds: list[Seed] = Field(default=[42], min_length=1)
    variants: dict[VariantName, dict[str, Any]] = Field(default={"base": {}}, min_length=1)
    executor: ExecutorSettings = Field(default_factory=ExecutorSettings)
    prevalence: list[Share] = Field(default=[0.1, 0.2, 0.4], min_length=1)
    audits: bool = True
    calibrate: bool = True

    @field_validator("arms", "seeds", "prevalence")
    @classmethod
    def _once(cls, values: list[Any]) -> list[Any]:
        if len(set(values)) < len(values):
            raise ValueError("a value is listed twice")
        return values

    @field_validator("variants", mode="before")
    @classmethod
    def _nothing_changed(cls, variants: Any) -> Any:
        """A variant without a line of its own is the base."""
        if not isinstance(variants, dict):
            return variants
        return {str(name): {} if keys is None else keys for name, keys in variants.items()}


def find_study(name: str) -> Path:
    """The file meant by ``--config``: a file, or a shipped study.

    Raises:
        ConfigError: it is neither.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = find_shipped("configs/studies", name.removeprefix("studies/"))
    if shipped is not None:
        return shipped
    names = [f"studies/{known}" for known in shipped_names("configs/studies")]
    close = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    raise ConfigError(
        f"--config {name} is neither a file nor one of our studies ({', '.join(names)}).{hint}"
    )


def load_study(path: Path) -> Study:
    """Read and validate a study.

    Raises:
        ConfigError: the file is no YAML, or a key or value is wrong.
    """
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" near line {where.line + 1}" if where is not None else ""
        raise ConfigError(f"Study {path} is not valid YAML{line}; mend it there.") from None
    if not isinstance(content, dict):
        raise ConfigError(f"Study {path} holds no `key: value` lines; see studies/ablation.yaml.")
    try:
        return Study.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"Study {path}: {_sentence(error)}") from None


def _sentence(error: ValidationError) -> str:
    # Of a union each member complains, and puts its type in the location; the deepest says most.
    first = max(error.errors(include_url=False), key=lambda item: len(item["loc"]))
    known: type[BaseModel] = ExecutorSettings if first["loc"][0] == "executor" else Study
    # Members of a union stand in the location too, such as `folds.constrained-int`.
    parts = [str(part) for part in first["loc"]]
    key = ".".join(parts[:1] if parts[0] == "folds" else parts)
    if first["type"] == "extra_forbidden":
        close = difflib.get_close_matches(parts[-1], list(known.model_fields), n=1)
        hint = f"; did you mean {close[0]}?" if close else "."
        return f"{key} is not a key that a study knows{hint}"
    if first["type"] == "missing":
        return f"{key} is missing."
    if key == "folds":
        return f"folds is {first['input']!r}: give a whole number from 2, canonical or sites."
    message = first["msg"].removeprefix("Value error, ")
    return f"{key} is {first['input']!r}: {message[0].lower()}{message[1:]}."


__all__ = ["Arm", "ExecutorSettings", "Study", "find_study", "load_study"]
