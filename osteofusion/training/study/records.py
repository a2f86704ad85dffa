"""What a study folder knows of its cells: `cells.csv`, `looks.csv`, and how to go on."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from osteofusion.errors import ConfigError
from osteofusion.files import atomic_path
from osteofusion.training.study.plan import Cell

COLUMNS = (
    "cell", "variant", "arm", "fold", "repeat", "seed", "status", "seconds", "folder", "error",
)  # fmt: skip
SETTINGS = "cell.yaml"
_TEXT = dict.fromkeys(("cell", "variant", "arm", "status", "folder", "error"), str)


class Records:
    """Cells that have ended, in the order of the plan; rows of an earlier plan are kept.

    Args:
        out: The study folder.
        cells: The plan.

    Raises:
        ConfigError: a finished cell was run with other settings.
    """

    def __init__(self, out: Path, cells: Sequence[Cell]) -> None:
        self.out = out
        self.cells = cells
        self._rows: dict[str, dict[str, Any]] = {}
        if (out / "cells.csv").is_file():
            known = pd.read_csv(out / "cells.csv", dtype=_TEXT, keep_default_na=False)
            for row in known.to_dict(orient="records"):
                self._rows[row["cell"]] = {str(key): value for key, value in row.items()}
        for cell in cells:
            if self._status(cell) == "done":
                self._refuse_changes(cell)

    def folder(self, cell: Cell) -> Path:
        """Run folder of a cell."""
        return self.out / "cells" / cell.name

    @property
    def finished(self) -> list[Cell]:
        """Cells of the plan that are done."""
        return [cell for cell in self.cells if self._status(cell) == "done"]

    @property
    def open(self) -> list[Cell]:
        """Cells of the plan that are still to be run, failed ones again."""
        return [cell for cell in self.cells if self._status(cell) != "done"]

    @property
    def failed(self) -> dict[str, str]:
        """Name of a failed cell of the plan to its sentence."""
        return {
            cell.name: self._rows[cell.name]["error"]
            for cell in self.cells
            if self._status(cell) == "failed"
        }

    @property
    def tried(self) -> int:
        """Configurations ever tried in this folder: variants x arms, of earlier plans too."""
        return len({(row["variant"], row["arm"]) for row in self._rows.values()})

    def add(self, cell: Cell, seconds: float, error: str) -> None:
        """Record that a cell has ended, and the look at its test fold."""
        folder = self.folder(cell)
        if not error:
            self._look(cell)
        self._rows[cell.name] = {
            "cell": cell.name,
            "variant": cell.variant,
            "arm": cell.arm,
            "fold": cell.fold,
            "repeat": cell.repeat,
            "seed": cell.seed,
            "status": "failed" if error else "done",
            "seconds": round(seconds, 2),
            "folder": folder.relative_to(self.out).as_posix(),
            "error": error,
        }
        order = {cell.name: place for place, cell in enumerate(self.cells)}
        rows = sorted(self._rows.values(), key=lambda row: order.get(row["cell"], len(order)))
        with atomic_path(self.out / "cells.csv") as temporary:
            pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(temporary, index=False)

    def looks(self) -> pd.DataFrame:
        """Each time a test fold was scored: time, cell, repeat, fold."""
        return pd.read_csv(self.out / "looks.csv")

    def _look(self, cell: Cell) -> None:
        path = self.out / "looks.csv"
        new = not path.is_file()
        with path.open("a", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            if new:
                writer.writerow(("time", "cell", "repeat", "fold"))
            now = datetime.now(timezone.utc).isoformat(timespec="seconds")
            writer.writerow((now, cell.name, cell.repeat, cell.fold))

    def _status(self, cell: Cell) -> str:
        row = self._rows.get(cell.name)
        if row is None:
            return "open"
        there = (self.folder(cell) / "predictions.csv").is_file()
        return str(row["status"]) if there or row["status"] != "done" else "open"

    def _refuse_changes(self, cell: Cell) -> None:
        changed = sorted(_differences(settings_of(self.folder(cell)) or {}, cell.settings))
        if changed:
            key, was, now = changed[0]
            more = f", and {len(changed) - 1} more settings" if len(changed) > 1 else ""
            raise ConfigError(
                f"{self.folder(cell)} was run with {key}={was}, and now it is {now}{more}; choose "
                "another --out, or give the settings of before."
            )


def settings_of(folder: Path) -> dict[str, Any] | None:
    """The settings that a cell's folder was made with; None where it has none."""
    try:
        content: Any = yaml.safe_load((folder / SETTINGS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return content if isinstance(content, dict) else None


def _differences(
    one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, str, str]]:
    for key in {*one, *other}:
        first, second = one.get(key), other.get(key)
        if isinstance(first, dict) and isinstance(second, dict):
            yield from _differences(first, second, f"{prefix}{key}.")
        elif first != second:
            yield f"{prefix}{key}", str(first), str(second)
