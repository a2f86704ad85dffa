"""osteofusion beside fusilli, pytorch-widedeep and AutoGluon MultiModal on the Mendeley cohort.

    python tests/benchmarks/peers.py --root DIR [--out peers.json] [--environments DIR]

Each package gets a virtual environment (several GB of PyTorch each, made once) and a process of its
own for every fit, without network and on the CPU. All train on the same rows: our grouped,
stratified folds, radiographs decoded by us to 224 px grayscale PNG, clinical columns without
T-score, the same backbone from random weights, epochs and batch size, no augmentation; fusion,
optimiser and choice of the epoch are each package's own. Where a package cannot be installed or
run, the table says why.

Training is the time from files to a trained model, imports apart; CPU time is of the whole process,
and the fairer figure where others use the machine; memory is the largest sum over a process and its
children, pages that they share counted once. Times are means over folds. AUROC is taken within each
fold and averaged, its interval is over split groups. Beside `--out` lies the table in Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import yaml
from PIL import Image
from rich.console import Console

from osteofusion.data.cache import RadiographCache
from osteofusion.data.clinical import ClinicalSchema, fit_preprocessing, select_features
from osteofusion.data.cohort import Cohort, build_cohort
from osteofusion.data.labels import TASKS, task_classes
from osteofusion.data.radiograph import RadiographPreprocessing
from osteofusion.data.splits import make_splits, save_splits, select_fold
from osteofusion.evaluation import BaselineRows, fit_baselines
from osteofusion.evaluation.auroc import auroc_interval, clustered_auroc, mean_auroc
from osteofusion.files import cache_root, write_text

RUNNERS = Path(__file__).parent / "peers"
TASK, SIDE, BACKBONE = "binary", 224, "resnet18"
LONGEST_INSTALL, LONGEST_FIT = 3600, 3600  # s
BASELINES = {"logistic_regression": "logistic regression, no image", "age": "age alone"}


@dataclass(frozen=True)
class Package:
    """One of those compared.

    Attributes:
        name: As its users know it.
        runner: Its script.
        fusion: How it joins image and table here.
        requirements: What pip is asked for; nothing where it runs in our own environment.
    """

    name: str
    runner: str
    fusion: str
    requirements: tuple[str, ...] = ()


PACKAGES = (
    Package("osteofusion", "run_osteofusion.py", "concat, started from regression"),
    Package(
        "fusilli",
        "run_fusilli.py",
        "ConcatImageMapsTabularMaps",
        ("fusilli", "torchvision"),  # the backbone, which it has not
    ),
    Package(
        "pytorch-widedeep", "run_widedeep.py", "WideDeep(TabMlp, Vision)", ("pytorch-widedeep",)
    ),
    Package(
        "AutoGluon MultiModal",
        "run_autogluon.py",
        "fusion_mlp(FT-Transformer, timm)",
        # It allows torch 2.13 as well, of which some indexes have a CPU build without torchvision.
        ("autogluon.multimodal", "torch<2.13"),
    ),
)


@dataclass
class Outcome:
    """What became of one package: a figure a fold, or the reason why there is none."""

    name: str
    fusion: str
    versions: dict[str, str] = field(default_factory=dict)
    training_s: list[float] = field(default_factory=list)
    process_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    peak_gb: list[float] = field(default_factory=list)
    failed: str | None = None
    auroc: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Work:
    """The rows of all folds, and where the runners find them."""

    folder: Path
    table: pd.DataFrame
    tasks: list[Path]
    baselines: dict[str, np.ndarray]


def share(root: Path, folder: Path) -> Cohort:
    """Write decoded radiographs, table and manifest, and join what was written."""
    original = build_cohort("mendeley", root)
    manifest, table = original.manifest, original.table
    (folder / "images").mkdir(parents=True)
    cache = RadiographCache(cache_root() / "radiographs", RadiographPreprocessing(SIDE))
    images = zip(table["subject_id"], original.files(table), table["image_sha256"], strict=True)
    for subject, path, sha256 in images:
        Image.fromarray(cache.get(path, sha256)).save(folder / "images" / f"{subject}.png")
    columns = {}
    for name in select_features(manifest, None):
        column = manifest.columns[name]
        columns[name] = {"kind": column.kind.replace("presence", "binary"), "unit": column.unit}
    whole = {name: "Int64" for name, column in columns.items() if column["kind"] == "binary"}
    written = table[["subject_id", "label", *columns]].astype(whole)
    written.to_csv(folder / "clinical.csv", index=False)
    content = {key: getattr(manifest, key) for key in ("title", "region", "license", "citation")}
    content |= {
        "name": f"mendeley_{SIDE}",
        "images": {"layout": "folder", "folder": "images"},
        "table": {"file": "clinical.csv", "id": "subject_id"},
        "label": {"column": "label"},
        "columns": {
            name: {key: value for key, value in column.items() if value is not None}
            for name, column in columns.items()
        },
    }
    write_text(folder / "manifest.yaml", yaml.safe_dump(content))
    return build_cohort(str(folder / "manifest.yaml"), folder)


def divide(cohort: Cohort, folder: Path, folds: int, epochs: int, batch_size: int) -> Work:
    """Split the cohort, write each fold's task, and ask the baselines."""
    rows, names = cohort.table, select_features(cohort.manifest, None)
    # One split has ten whole batches of 16: we leave an incomplete one out, the others do not.
    shares = {"folds": folds} if folds > 1 else {"validation": 0.13, "test": 0.2}
    splits = make_splits(rows, seed=0, **shares)
    save_splits(splits, folder / "splits.csv")
    classes = task_classes(TASK)
    y = rows["label"].map(TASKS[TASK]).map(classes.index).to_numpy(dtype=np.int64)
    numeric = [name for name in names if cohort.manifest.columns[name].kind == "numeric"]
    settings = {
        "numeric": numeric,
        "categorical": [name for name in names if name not in numeric],
        "image_size": SIDE,
        "backbone": BACKBONE,
        "epochs": epochs,
        "batch_size": batch_size,
        "seed": 0,
    }
    tasks, baselines = [], {name: np.full(len(rows), np.nan) for name in BASELINES}
    fold_of = np.full(len(rows), -1)
    for fold in range(folds):
        keys = ["subject_id", "image"]
        side = rows[keys].merge(select_fold(splits, fold, 0), on=keys)["split"].to_numpy()
        given = rows[["subject_id", *names]].assign(
            image=[str(path) for path in cohort.files(rows)], split=side, label=y
        )
        given.to_csv(folder / f"fold_{fold}.csv", index=False)
        tasks.append(folder / f"fold_{fold}.json")
        own = {"fold": fold, "table": f"fold_{fold}.csv"}
        write_text(tasks[-1], json.dumps(settings | own, indent=2) + "\n")
        at = {name: np.flatnonzero(side == name) for name in ("train", "test")}
        fold_of[at["test"]] = fold
        schema = ClinicalSchema.fit(rows.iloc[at["train"]], cohort.manifest, names)
        clinical = schema.encode(rows)
        design = fit_preprocessing(clinical[at["train"]], schema).transform(clinical)
        age = rows["age"].to_numpy(dtype=np.float64)
        facts = {name: BaselineRows(design[i], y[i], age[i]) for name, i in at.items()}
        found = fit_baselines(facts["train"], facts["test"], classes).probabilities
        for name, p in baselines.items():
            p[at["test"]] = found[name][:, 1]
    return Work(folder, rows.assign(y=y, fold=fold_of), tasks, baselines)


def install(package: Package, environments: Path) -> tuple[Path, str | None]:
    """The package's interpreter, and the reason where it could not be installed."""
    if not package.requirements:
        return Path(sys.executable), None
    folder = environments / package.name.lower().replace(" ", "-")
    python = folder / "bin/python"
    done, wanted = folder / "installed.txt", "\n".join(package.requirements)
    if done.is_file() and done.read_text() == wanted:
        return python, None
    shutil.rmtree(folder, ignore_errors=True)
    log = environments / f"{folder.name}-install.log"
    commands = [
        [sys.executable, "-m", "venv", str(folder)],
        [str(python), "-m", "pip", "install", *package.requirements],
    ]
    with log.open("w") as stream:
        for command in commands:
            try:
                code = subprocess.run(
                    command, stdout=stream, stderr=subprocess.STDOUT, timeout=LONGEST_INSTALL
                ).returncode
            except subprocess.TimeoutExpired:
                return python, f"pip had not finished after {LONGEST_INSTALL} s"
            if code:
                return python, reason(log, r"ERROR: (?!Ignored)", first=True)
    done.write_text(wanted)
    return python, None


def reason(log: Path, pattern: str, *, first: bool) -> str:
    """The first or last line of a log that matches; its last line where none does."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    found = [line for line in lines if re.match(pattern, line)] or lines[-1:] or ["no output"]
    line = re.sub(r" \(from versions: [^)]*\)", "", found[0 if first else -1])
    return line[:300].replace("|", "/")  # it stands in a table


def memory(process: psutil.Process) -> int:
    """Bytes that a process and its children hold now."""
    total = 0
    try:
        tree = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for each in tree:
        try:
            # Shares of common pages are slow to ask for, and needless where nobody shares.
            info = each.memory_info() if len(tree) == 1 else each.memory_full_info()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        total += getattr(info, "pss", info.rss)
    return total


def cpu_seconds() -> float:
    """Processor time of all processes that have ended under this one."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(package: Package, python: Path, task: Path, out: Path, outcome: Outcome) -> None:
    """Fit and predict one fold in a process of its own; add what was measured."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    log = out / "log.txt"
    environment = os.environ | {
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "MPLBACKEND": "Agg",
    }
    if package.requirements:
        environment.pop("PYTHONPATH", None)  # it is of our own environment
    start, before, peak = time.perf_counter(), cpu_seconds(), 0
    with log.open("w") as stream:
        process = psutil.Popen(
            [str(python), str(RUNNERS / package.runner), str(task), str(out)],
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=out,
        )
        while process.poll() is None:
            peak = max(peak, memory(process))
            if time.perf_counter() - start > LONGEST_FIT:
                for child in [*process.children(recursive=True), process]:
                    child.kill()
                outcome.failed = f"had not finished after {LONGEST_FIT} s"
            time.sleep(0.1)
    seconds = time.perf_counter() - start
    if process.returncode:
        error = reason(log, r"[\w.]+(Error|Exception)\b", first=False)
        outcome.failed = outcome.failed or error
        return
    result = json.loads((out / "result.json").read_text())
    outcome.versions = result["versions"]
    outcome.training_s.append(round(result["training_s"], 1))
    outcome.process_s.append(round(seconds, 1))
    outcome.cpu_s.append(round(cpu_seconds() - before, 1))
    outcome.peak_gb.append(round(peak / 1e9, 2))


def score(work: Work, p: np.ndarray) -> tuple[float, float, float]:
    """AUROC within folds, averaged, with its 95 % interval."""
    table = work.table
    groups = np.unique(table["group"], return_inverse=True)[1]
    size = int(groups.max()) + 1
    y, fold = table["y"].to_numpy() == 1, table["fold"].to_numpy()
    tested = fold >= 0
    if np.isnan(p[tested]).any():
        raise ValueError("predictions are missing for some test rows")
    folds = [
        clustered_auroc(y[fold == each], p[fold == each], groups[fold == each], size)
        for each in np.unique(fold[tested])
    ]
    counts = [len(np.unique(groups[tested & side])) for side in (y, ~y)]
    auroc = mean_auroc(folds, (counts[0], counts[1]))
    low, high, _ = auroc_interval([auroc])
    return round(auroc.value, 3), round(low, 3), round(high, 3)


def predictions(work: Work, package: Package) -> np.ndarray:
    """A package's probabilities of all test rows, by subject."""
    parts = [
        pd.read_csv(place(work, package, fold) / "predictions.csv", dtype={"subject_id": str})
        for fold in range(len(work.tasks))
    ]
    p = pd.concat(parts).set_index("subject_id")["p"]
    return work.table["subject_id"].map(p).to_numpy(dtype=np.float64)


def place(work: Work, package: Package, fold: int) -> Path:
    """Where a package's runner writes."""
    return work.folder / Path(package.runner).stem / str(fold)


def markdown(outcomes: list[Outcome]) -> str:
    """The table of the README."""
    lines = [
        "| package | image and table | training, s | whole process, s | its CPU time, s "
        "| peak memory, GB | AUROC (95 % interval) |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in outcomes:
        versions = ", ".join(f"{name} {number}" for name, number in each.versions.items())
        name = f"{each.name} ({versions})" if versions else each.name
        if each.failed is not None:
            lines.append(f"| {name} | {each.fusion} | not run: {each.failed} | | | | |")
            continue
        seconds = [
            f"{np.mean(values):.0f}" if values else ""
            for values in (each.training_s, each.process_s, each.cpu_s)
        ]
        peak = f"{max(each.peak_gb):.1f}" if each.peak_gb else ""
        assert each.auroc is not None
        auroc, low, high = each.auroc
        area = f"{auroc:.3f} ({low:.3f} to {high:.3f})"
        lines.append(f"| {name} | {each.fusion} | {' | '.join(seconds)} | {peak} | {area} |")
    return "\n".join(lines) + "\n"


def fail(outcome: Outcome, why: str, environments: Path, console: Console) -> None:
    """Note and print why a package has no figures, without this machine's paths."""
    outcome.failed = why.replace(str(environments), "DIR")
    console.print(f"{outcome.name}: {outcome.failed}", markup=False)


def main() -> None:
    """Install, run fold by fold, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True, help="folder of the Mendeley data set")
    parser.add_argument("--out", type=Path, default=Path("peers.json"), help="results as JSON")
    parser.add_argument(
        "--environments",
        type=Path,
        default=cache_root() / "peers",
        help="folder of the virtual environments, logs and predictions",
    )
    parser.add_argument("--folds", type=int, default=1, help="1: one split, a fifth for the test")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument(
        "--only", nargs="+", choices=[each.name for each in PACKAGES], help="some of the packages"
    )
    options = parser.parse_args()
    console = Console()
    environments = options.environments.resolve()
    environments.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(environments / "work", ignore_errors=True)
    chosen = [each for each in PACKAGES if options.only is None or each.name in options.only]
    outcomes = {each: Outcome(each.name, each.fusion) for each in chosen}
    pythons = {}
    for package in chosen:
        console.print(f"{package.name}: environment")
        pythons[package], why = install(package, environments)
        if why is not None:
            fail(outcomes[package], f"cannot be installed: {why}", environments, console)
    cohort = share(options.root, environments / "work")
    work = divide(cohort, environments / "work", options.folds, options.epochs, options.batch_size)
    for fold, task in enumerate(work.tasks):
        turns = [each for each in chosen if outcomes[each].failed is None]
        shift = fold % max(1, len(turns))  # nobody is always the first
        for package in turns[shift:] + turns[:shift]:
            console.print(f"{package.name}: fold {fold + 1} of {options.folds}")
            outcome = outcomes[package]
            run(package, pythons[package], task, place(work, package, fold), outcome)
            if outcome.failed is not None:
                fail(outcome, outcome.failed, environments, console)
    for package, outcome in outcomes.items():
        if outcome.failed is None:
            outcome.auroc = score(work, predictions(work, package))
    rows = list(outcomes.values())
    for name, p in work.baselines.items():
        rows.append(Outcome(BASELINES[name], "", auroc=score(work, p)))
    text = markdown(rows)
    tested = work.table[work.table["fold"] >= 0]
    content = {
        "task": TASK,
        "backbone": f"{BACKBONE}, random weights",
        "image_size": SIDE,
        "folds": options.folds,
        "epochs": options.epochs,
        "batch_size": options.batch_size,
        "cores": os.cpu_count(),
        "test_rows": len(tested),
        "test_normal": int((tested["y"] == 0).sum()),
        "rows": [asdict(row) for row in rows],
    }
    write_text(options.out, json.dumps(content, indent=2) + "\n")
    write_text(options.out.with_suffix(".md"), text)
    console.print(text, markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
