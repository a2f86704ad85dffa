"""All speed claims of the README, each a ratio of two sides that took turns in this run.

    python tests/benchmarks/run.py [loading training processes cohort] [--out FILE.json]
                                   [--readme README.md]

Prints the table; `--readme` puts it between the two marks there.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import time
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

from harness import Result, table
from rich.progress import track

from osteofusion.files import write_text

PARTS = ("loading", "training", "processes", "cohort")
BEGIN, END = "<!-- benchmarks -->", "<!-- end of benchmarks -->"


def measure(part: str) -> list[Result]:
    """The results of one file."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    found: list[Result] = import_module(part).measure()
    return found


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"some of {', '.join(PARTS)}; default: all")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--readme", type=Path)
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"unknown part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    started = time.perf_counter()
    results: list[Result] = []
    for part in track(options.parts or PARTS, "Measuring"):
        # In a process of its own: Linux counts a parent's memory in the peak of its children.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            found = pool.submit(measure, part).result()
        print(table(found), flush=True)  # what follows may fail
        results += found
    minutes = (time.perf_counter() - started) / 60
    shown = (
        f"{table(results)}\n\n{os.cpu_count()} cores ({platform.machine()}), torch "
        f"{version('torch')}, {minutes:.0f} minutes in all; medians of rounds in which both sides "
        "took turns."
    )
    print(shown)
    if options.out is not None:
        write_text(options.out, json.dumps([each.to_dict() for each in results], indent=2) + "\n")
    if options.readme is not None:
        before, rest = options.readme.read_text(encoding="utf-8").split(BEGIN)
        after = rest.split(END)[1]
        write_text(options.readme, f"{before}{BEGIN}\n{shown}\n{END}{after}")


if __name__ == "__main__":
    main()
