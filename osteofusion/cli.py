"""The command line. Only the command asked for is imported: `--help` needs no torch."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from osteofusion.errors import OsteofusionError
from osteofusion.parser import Parser

_HELP = """usage: osteofusion <command> [options]

Join radiographs to clinical rows, train a fused model, and report honestly what each one adds.

main job
  fit         train, then score the best checkpoint on the test side beside the baselines
  test        score a checkpoint:  osteofusion test --ckpt_path FILE [--data.root DIR]
  validate    loss and metrics of a checkpoint on its validation side
  predict     apply a checkpoint to new images and rows without labels

evidence
  study       arms, folds, repeats and variants, each an ordinary run; resumable
  stages      train two classes, carry the model over to three, compare with a fresh start
  report      one page, PDF and model card of a run or a study

clinic
  explain     saliency maps, clinical attributions and permutation importance of a run
  export      write a checkpoint as a bundle that predicts without the machine that trained it
  serve       predict from a bundle over HTTP, with a page for the browser
  predict     --bundle DIR: from a bundle, without Lightning or torch

data
  manifest    init: draft a manifest by looking at images and a table; check: hold it to the data
  cohort      join images to table rows by subject ID and report what does not fit
  audit       find copies, leaks and shortcuts in a cohort, in folders or in a split
  demo        write a synthetic cohort to try everything on

  osteofusion <command> --help     options of one command
  osteofusion --version

start here
  osteofusion fit --config binary.yaml
  osteofusion fit --config binary.yaml --data.manifest mendeley --data.root DIR
"""
_TRAINING = ("fit", "validate", "test", "predict")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit status: 0, or 2 for a mistake that the user can mend (said in one sentence).
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = arguments[0] if arguments else "--help"
    try:
        if command in ("--help", "-h", "help"):
            print(_HELP, end="")
            return 0
        if command == "--version":
            from osteofusion import __version__

            print(f"osteofusion {__version__}")
            return 0
        commands: dict[str, Callable[[list[str]], int]] = {
            "manifest": _manifest,
            "cohort": _cohort,
            "audit": _audit,
            "demo": _demo,
            "study": _study,
            "stages": _stages,
            "report": _report,
            "explain": _explain,
            "export": _export,
            "serve": _serve,
            **dict.fromkeys(_TRAINING, lambda _: _train(arguments)),
        }
        if command not in commands:
            raise OsteofusionError(
                f"Unknown command {command!r}; the commands are {', '.join(commands)}."
            )
        return commands[command](arguments[1:])
    except OsteofusionError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return _fail("Interrupted; nothing half-written was left.")
    except OSError as error:
        if error.errno not in (
            errno.ENOSPC,
            errno.EDQUOT,
            errno.EFBIG,
            errno.EACCES,
            errno.EPERM,
            errno.EROFS,
            errno.ENOTDIR,
            errno.EISDIR,
            errno.EEXIST,
            errno.ENAMETOOLONG,
            errno.ENOENT,
        ):
            raise
        place = f" {error.filename}" if error.filename else ""
        return _fail(
            f"Cannot read or write{place}: {error.strerror}; make room or access, or choose "
            "another folder."
        )


def _fail(sentence: str) -> int:
    print(f"osteofusion: error: {sentence}", file=sys.stderr)
    return 2


def _train(arguments: list[str]) -> int:
    if arguments[0] == "predict" and any(a.split("=")[0] == "--bundle" for a in arguments):
        from osteofusion.serving.predict_command import run as predict

        return predict(arguments[1:])
    from osteofusion.training.cli import run

    return run(arguments)


def _manifest(arguments: list[str]) -> int:
    from osteofusion.data.manifest_command import run

    return run(arguments)


def _audit(arguments: list[str]) -> int:
    from osteofusion.audit.command import run

    return run(arguments)


def _study(arguments: list[str]) -> int:
    from osteofusion.training.study.command import run

    return run(arguments)


def _stages(arguments: list[str]) -> int:
    from osteofusion.training.stages import run

    return run(arguments)


def _report(arguments: list[str]) -> int:
    from osteofusion.report.command import run

    return run(arguments)


def _explain(arguments: list[str]) -> int:
    from osteofusion.explain.command import run

    return run(arguments)


def _export(arguments: list[str]) -> int:
    from osteofusion.serving.command import run

    return run(arguments)


def _serve(arguments: list[str]) -> int:
    from osteofusion.serving.server import run

    return run(arguments)


def _cohort(arguments: list[str]) -> int:
    parser = Parser(
        prog="osteofusion cohort",
        description="Join images to table rows by subject ID and report everything that does not "
        "fit; every image is decoded once.",
    )
    parser.add_argument(
        "--manifest",
        required=True,
        nargs="+",
        help="name of a shipped manifest, or a path; several make one cohort of several sites",
    )
    parser.add_argument("--root", type=Path, nargs="+", help="folder of each data set")
    parser.add_argument("--table", type=Path, help="another table file")
    parser.add_argument("--labels", type=Path, help="another label file")
    parser.add_argument("--out", type=Path, help="write the joined table to this CSV")
    parser.add_argument("--html", type=Path, help="write a page to look at the cohort")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--strict", action="store_true", help="exit 2 when anything is wrong")
    options = parser.parse_args(arguments)

    from osteofusion.data.cohort import build_cohort, missing_root_message
    from osteofusion.data.manifest import load_manifest
    from osteofusion.data.report import print_report
    from osteofusion.errors import CohortError
    from osteofusion.files import atomic_path

    manifests = [load_manifest(name) for name in options.manifest]
    if options.root is None:
        raise CohortError("--root: " + missing_root_message(manifests[0], None))
    cohort = build_cohort(
        manifests,
        options.root,
        table=options.table,
        labels=options.labels,
        decode=True,
        progress=True,
    )
    if options.out is not None:
        with atomic_path(options.out) as temporary:
            cohort.table.to_csv(temporary, index=False)
    if options.html is not None:
        from osteofusion.data.page import write_page

        write_page(cohort, options.html, progress=True)
    if options.json:
        print(json.dumps(cohort.report.to_dict(), indent=2))
    else:
        print_report(cohort.report)
    problems = cohort.report.problems
    if options.strict and problems:
        named = ", ".join(name.replace("_", " ") for name in problems)
        raise CohortError(f"--strict: {cohort.manifest.name} has findings: {named}.")
    return 0


def _demo(arguments: list[str]) -> int:
    parser = Parser(
        prog="osteofusion demo",
        description="Write a synthetic cohort: drawn radiographs and a workbook in the layout of "
        "the Mendeley data set.",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument("--seed", type=int, default=0, help="another seed, another cohort")
    parser.add_argument("--subjects", type=int, default=400, help="number of subjects")
    parser.add_argument(
        "--region", default="knee", help="knee (one film a subject) or spine (two views)"
    )
    options = parser.parse_args(arguments)

    from osteofusion.data.demo import write_demo

    write_demo(options.out, seed=options.seed, subjects=options.subjects, region=options.region)
    manifest = {"knee": "demo"}.get(options.region, f"demo_{options.region}")
    named = "" if manifest == "demo" else f" --data.manifest {manifest}"
    print(
        f"Synthetic demo data in {options.out}. Try:\n"
        f"  osteofusion cohort --manifest {manifest} --root {options.out}\n"
        f"  osteofusion fit --config binary.yaml{named} --data.root {options.out}"
    )
    return 0


def entry() -> None:
    """Entry point of the console script."""
    try:
        status = main()
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    sys.exit(status)


if __name__ == "__main__":
    entry()
