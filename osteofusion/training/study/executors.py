"""Where cells run: processes of this machine, or tasks of Ray. Both answer with futures."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import Any, Protocol, TypeVar

from osteofusion.errors import ConfigError
from osteofusion.training.study.config import ExecutorSettings

_Result = TypeVar("_Result")
# Read by the libraries when they are loaded, so they must be there before a worker imports them.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Executor(Protocol):
    """Runs functions elsewhere."""

    def submit(self, function: Callable[..., _Result], *arguments: Any) -> Future[_Result]:
        """Run `function` in a worker, which stays alive for the next one."""


@contextmanager
def open_executor(settings: ExecutorSettings) -> Iterator[Executor]:
    """The executor that a study asks for; on an error, Ctrl-C too, its workers are killed.

    Killing them is safe: whatever a run writes it writes whole.

    Raises:
        ConfigError: Ray is asked for and not installed, or its cluster cannot be reached.
    """
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, str(settings.threads)))
    executor = _Ray(settings) if settings.name == "ray" else _Local(settings)
    try:
        yield executor
    except BaseException:
        executor.kill()
        raise
    finally:
        executor.close()
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class _Local:
    def __init__(self, settings: ExecutorSettings) -> None:
        self._workers = settings.workers
        self._others = multiprocessing.active_children()  # of whoever runs a study in a process
        self._pool = self._start()

    def _start(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            self._workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_begin_worker,
        )

    def submit(self, function: Callable[..., _Result], *arguments: Any) -> Future[_Result]:
        try:
            return self._pool.submit(function, *arguments)
        except BrokenExecutor:  # a worker was killed, perhaps for lack of memory
            self._pool = self._start()
            return self._pool.submit(function, *arguments)

    def kill(self) -> None:
        for process in multiprocessing.active_children():
            if process not in self._others:
                process.kill()

    def close(self) -> None:
        self.kill()  # idle by now; to leave Python in good order takes them two seconds
        self._pool.shutdown(cancel_futures=True)


class _Ray:
    def __init__(self, settings: ExecutorSettings) -> None:
        try:
            import ray
        except ImportError:
            raise ConfigError(
                "executor ray needs the package ray, which is an extra: pip install "
                '"osteofusion[ray]", or use --executor local.'
            ) from None
        self._ray = ray
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if settings.address is not None:
            options["address"] = settings.address
        else:
            options["num_cpus"] = settings.workers * settings.threads
            options["include_dashboard"] = False
        before = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(**options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            where = settings.address or "on this machine"
            reason = str(error).splitlines()[0].rstrip(".")
            raise ConfigError(
                f"Ray cannot be reached or started {where} ({reason}); see executor.address."
            ) from None
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)  # Ray's own would end the study without a word
        self._needs = {"num_cpus": settings.threads, "num_gpus": settings.gpus_per_cell}

    def submit(self, function: Callable[..., _Result], *arguments: Any) -> Future[_Result]:
        task = self._ray.remote(function).options(**self._needs, max_retries=0)
        future: Future[_Result] = task.remote(*arguments).future()
        return future

    def kill(self) -> None:
        """Nothing more: the tasks of a job end with it."""

    def close(self) -> None:
        self._ray.shutdown()


def _begin_worker() -> None:
    """Leave Ctrl-C to the parent, and do not outlive it: a later study would meet this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


__all__ = ["Executor", "open_executor"]
