"""Progress bars of long work, on standard error and only where somebody looks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rich.console import Console
from rich.progress import track

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def shown(items: Iterable[_Item], total: int, what: str, progress: bool) -> Iterable[_Item]:
    """The items, with a bar called `what` where `progress` is asked for."""
    console = Console(stderr=True)
    disable = not progress or not console.is_terminal
    return track(items, what, total, console=console, transient=True, disable=disable)


def in_threads(
    work: Callable[[_Item], _Result], items: Sequence[_Item], what: str, progress: bool
) -> Iterator[_Result]:
    """Results of `work` in the order of the items, done in one thread a processor."""
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        try:
            yield from shown(pool.map(work, items), len(items), what, progress)
        except BaseException:
            pool.shutdown(cancel_futures=True)  # on Ctrl-C or an error, leave at once
            raise
