"""Runs what is open of a study, and shows how far it is."""

from __future__ import annotations

import signal
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from osteofusion.errors import ConfigError
from osteofusion.training.study.config import ExecutorSettings
from osteofusion.training.study.executors import Executor
from osteofusion.training.study.plan import Cell, Combination
from osteofusion.training.study.records import Records

_A_YEAR = 365 * 86400.0
_LOCK = ".lock"


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """SIGTERM, which schedulers send, ends the block as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():  # signals are for that one
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold the study folder alone; the lock ends with the process, however that ends.

    Raises:
        ConfigError: another study holds it.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / _LOCK).open("a") as stream:
        if sys.platform != "win32":
            import fcntl

            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(
                    f"Another study is at work in {out}; wait for its end, or choose another --out."
                ) from None
            except OSError:
                pass  # a file system without locks keeps nobody out
        yield


def resolve_all(
    executor: Executor, combinations: Sequence[Combination]
) -> list[tuple[Combination, dict[str, Any]]]:
    """All settings of each combination, tried out in the workers.

    Raises:
        ConfigError: one of them cannot be.
    """
    futures = [executor.submit(_resolve, combination) for combination in combinations]
    found = []
    for combination, future in zip(combinations, futures, strict=True):
        settings, error = future.result()
        if error:
            raise ConfigError(f"variant {combination.variant}, arm {combination.arm}: {error}")
        found.append((combination, settings))
    return found


def run_open(records: Records, executor: Executor, settings: ExecutorSettings) -> None:
    """Run the open cells of a study, as many at a time as there are workers."""
    waiting = deque(records.open)
    running: dict[Future[tuple[float, str]], Cell] = {}
    with _progress(records) as (progress, task):
        while waiting or running:
            while waiting and len(running) < settings.workers:
                cell = waiting.popleft()
                folder = str(records.folder(cell))
                running[executor.submit(_run, cell, folder, settings.threads)] = cell
            names = ", ".join(cell.name for cell in running.values())
            progress.update(task, running=names, failed=len(records.failed))
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                cell = running.pop(future)
                seconds, error = _ended(future, cell)
                records.add(cell, seconds, error)
                progress.advance(task)
                how = f"failed: {error}" if error else f"done in {seconds:.1f} s"
                done = len(records.cells) - len(waiting) - len(running)
                progress.print(f"{done}/{len(records.cells)} {cell.name} {how}", markup=False)


def _resolve(combination: Combination) -> tuple[dict[str, Any], str]:
    # Workers alone import torch, once each.
    from osteofusion.training.study.cell import resolve_arm

    return resolve_arm(combination)


def _run(cell: Cell, folder: str, threads: int) -> tuple[float, str]:
    from osteofusion.training.study.cell import run_cell

    return run_cell(cell, folder, threads)


def _ended(future: Future[tuple[float, str]], cell: Cell) -> tuple[float, str]:
    """Seconds and error of a cell, also where its worker is gone."""
    try:
        return future.result()
    except BrokenExecutor:
        return 0.0, "A worker was killed, perhaps for lack of memory; use fewer workers."
    except Exception as error:  # Ray's, of a worker or a machine that is gone
        return 0.0, f"The worker is gone ({type(error).__name__}); see Ray's logs."


@contextmanager
def _progress(records: Records) -> Iterator[tuple[Progress, TaskID]]:
    """One view: a bar on a terminal; the lines of finished cells everywhere."""
    console = Console(stderr=True)
    progress = Progress(
        SpinnerColumn(),
        TextColumn("cells"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("failed {task.fields[failed]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[running]}", markup=False),
        console=console,
        transient=True,
        disable=not console.is_terminal,
        speed_estimate_period=_A_YEAR,  # a cell may take longer than rich's 30 s
    )
    with progress:
        total, done = len(records.cells), len(records.finished)
        yield progress, progress.add_task("", total=total, completed=done, running="", failed=0)
