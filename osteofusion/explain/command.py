"""The command ``osteofusion explain``."""

from __future__ import annotations

import difflib
import sys
from argparse import Namespace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from osteofusion.errors import ConfigError
from osteofusion.explain import METHODS
from osteofusion.explain.overlay import COLORMAPS
from osteofusion.files import atomic_folder
from osteofusion.parser import Parser

if TYPE_CHECKING:
    from osteofusion.training.datamodule import RadiographDataModule


def run(arguments: list[str]) -> int:
    """Explain a trained model.

    Returns:
        0.

    Raises:
        OsteofusionError: an option is wrong, the run is none, or its data cannot be read.
    """
    options = _parser().parse_args(arguments)
    for name in ("most", "repeats"):
        if getattr(options, name) < 1:
            raise ConfigError(f"--{name} is {getattr(options, name)}; it must be at least 1.")
    out = options.out or run_folder(options.run) / "explain"
    if find_spec("captum") is None:
        raise ConfigError("osteofusion explain needs captum: pip install 'osteofusion[explain]'.")
    # Here and not above: PyTorch and Lightning take seconds, and a mistake is said at once.
    from osteofusion.explain.cohort import load_run
    from osteofusion.explain.write import Wanted, write_explanations

    with atomic_folder(out) as folder:
        model, data = load_run(options.run)
        side = data.side(options.side)
        if side.empty:
            raise ConfigError(
                f"No row of {data.cohort.manifest.name} is on the {options.side} side; choose "
                "another --side."
            )
        chosen = _choose(data, side, options)
        wanted = Wanted(options.method, options.colormap, options.repeats)
        notes = write_explanations(model, data, side, chosen, folder, wanted)
    if options.subjects is None and len(chosen) < len(side):
        notes.insert(
            0,
            f"Explained the first {len(chosen)} of {len(side)} rows of the {options.side} side; "
            f"--most {len(side)} explains all, --subjects ID names some.",
        )
    print("\n".join([*notes, f"Wrote {out}"]), file=sys.stderr)
    return 0


def run_folder(text: str) -> Path:
    """The run folder of a run folder or of a checkpoint in it; else the checkpoint's own folder.

    Raises:
        ConfigError: There is nothing of that name.
    """
    path = Path(text)
    if not path.exists():
        raise ConfigError(f"{text} does not exist; name a run folder or a checkpoint.")
    if path.is_dir():
        return path
    return path.parent.parent if path.parent.name == "checkpoints" else path.parent


def _choose(data: RadiographDataModule, side: pd.DataFrame, options: Namespace) -> pd.DataFrame:
    """The rows to explain one by one."""
    if options.subjects is None:
        return side.head(options.most)
    known = side["subject_id"].unique().tolist()
    for subject in options.subjects:
        if subject in known:
            continue
        elsewhere = data.rows.loc[data.rows["subject_id"] == subject, "split"]
        if not elsewhere.empty:
            place = elsewhere.iloc[0]
            raise ConfigError(
                f"--subjects {subject} is on the {place} side; choose --side {place}."
            )
        close = difflib.get_close_matches(subject, known, n=3, cutoff=0.4)
        hint = f"close matches: {', '.join(close)}" if close else f"the first is {known[0]}"
        raise ConfigError(
            f"--subjects {subject} is nobody on the {options.side} side of "
            f"{data.cohort.manifest.name}; {hint}."
        )
    return side[side["subject_id"].isin(options.subjects)]


def _parser() -> Parser:
    parser = Parser(
        prog="osteofusion explain",
        description="Why a trained model answers what it answers: saliency over each radiograph, "
        "how far each clinical value and each modality moved the answer, what the cohort's "
        "answers rest on, and whether the maps depend on what was learnt at all.",
    )
    parser.add_argument("run", metavar="RUN", help="run folder or checkpoint")
    parser.add_argument("--out", type=Path, help="folder to make (default: RUN/explain)")
    parser.add_argument("--side", choices=("train", "val", "test"), default="test")
    parser.add_argument("--subjects", nargs="+", metavar="ID", help="explain these")
    parser.add_argument(
        "--most", type=int, default=24, help="else explain so many rows of the side (default: 24)"
    )
    parser.add_argument(
        "--method", nargs="+", choices=METHODS, default=["gradcam"], help="kind of saliency map"
    )
    parser.add_argument(
        "--colormap", nargs="+", choices=tuple(COLORMAPS), default=["jet"], help="of the overlays"
    )
    parser.add_argument(
        "--repeats", type=int, default=30, help="shuffles of each input (default: 30)"
    )
    return parser
