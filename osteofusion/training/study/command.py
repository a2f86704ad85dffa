"""`osteofusion study`: arms, folds, repeats and variants, resumable and honestly compared."""

from __future__ import annotations

import threading
from importlib import import_module
from pathlib import Path

import yaml

from osteofusion.errors import OsteofusionError
from osteofusion.files import write_text
from osteofusion.parser import Parser
from osteofusion.training.study.config import Study, find_study, load_study
from osteofusion.training.study.executors import Executor, open_executor
from osteofusion.training.study.folds import Folds, plan_folds
from osteofusion.training.study.plan import (
    base_config,
    plan_cells,
    plan_combinations,
    read_given,
)
from osteofusion.training.study.records import Records
from osteofusion.training.study.runner import locked, resolve_all, run_open, sigterm_as_ctrl_c

_STUDIES = Path("runs/studies")
_RESULTS = "osteofusion.training.study.results"


def run(arguments: list[str]) -> int:
    """Run a study, or go on with it, and evaluate what is done.

    Returns:
        0.

    Raises:
        OsteofusionError: any mistake that the user can mend; a cell failed; Ctrl-C or SIGTERM.
    """
    options, rest = _parser().parse_known_args(arguments)
    path = find_study(options.config)
    study = _override(load_study(path), options.executor, options.workers)
    out = Path(options.out or _STUDIES / path.stem).resolve()  # workers may stand elsewhere
    try:
        with sigterm_as_ctrl_c():
            records = _work(path, study, read_given(rest), out)
    except KeyboardInterrupt:
        raise OsteofusionError(
            f"Interrupted; finished cells are kept in {out}: the same command goes on there."
        ) from None
    if failed := records.failed:
        name, error = next(iter(failed.items()))
        raise OsteofusionError(
            f"{len(failed)} of {len(records.cells)} cells failed, such as {name} ({error}) See "
            f"{out / 'cells' / name / 'log.txt'}; the same command runs them again."
        )
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="osteofusion study",
        description="Train arms x folds x repeats x variants, each cell an ordinary run, and "
        "compare them. The same command goes on where it was interrupted. Any option of fit, such "
        "as --data.root DIR, is a setting of every cell.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "-c", "--config", required=True, help="a study's YAML file, or studies/ablation.yaml"
    )
    parser.add_argument("--out", type=Path, help=f"folder of the study; default: {_STUDIES}/NAME")
    parser.add_argument("--workers", type=int, help="cells at a time")
    parser.add_argument("--executor", choices=("local", "ray"), help="where cells run")
    return parser


def _override(study: Study, executor: str | None, workers: int | None) -> Study:
    changed = {"name": executor, "workers": workers}
    if workers is not None and workers < 1:
        raise OsteofusionError(f"--workers is {workers}; it must be at least 1.")
    given = {key: value for key, value in changed.items() if value is not None}
    return study.model_copy(update={"executor": study.executor.model_copy(update=given)})


def _work(path: Path, study: Study, given: dict[str, str], out: Path) -> Records:
    base = base_config(study, path)
    folds = plan_folds(study, base, given)
    combinations = plan_combinations(study, base, folds, given)
    with open_executor(study.executor) as executor:
        cells = plan_cells(study, folds, resolve_all(executor, combinations))
        with locked(out):
            return _run_cells(path.stem, study, given, folds, Records(out, cells), executor)


def _run_cells(
    name: str,
    study: Study,
    given: dict[str, str],
    folds: Folds,
    records: Records,
    executor: Executor,
) -> Records:
    resolved = {**study.model_dump(), "settings": study.settings | given}
    write_text(records.out / "study.yaml", yaml.safe_dump(resolved, sort_keys=False))
    before = f"; {len(records.finished)} are done" if records.finished else ""
    print(
        f"Study {name}: {len(records.cells)} cells (variants {len(study.variants)}, arms "
        f"{len(study.arms)}, seeds {len(study.seeds)}, test folds {len(folds.pairs)}){before}. "
        f"Folder: {records.out}"
    )
    # What evaluates the last cell is read while the first ones run.
    threading.Thread(target=import_module, args=(_RESULTS,), daemon=True).start()
    run_open(records, executor, study.executor)
    from osteofusion.training.study.results import report

    report(study, name, records, executor)
    return records
