"""What the service costs beside the model it serves.

    python tests/benchmarks/serving.py BUNDLE FILM [--out FILE.json]

BUNDLE is a bundle that reads radiographs, FILM one of its radiographs. Bare is the same work
without HTTP, in this process: decode, preprocess, ONNX Runtime. Service and bare take turns, so
that whatever else the machine does falls on both; their ratio counts:

- one client: p50 of ``/v1/predict`` without overlay over p50 of bare, at most 1.5; bare's graph may
  use all processors;
- 16 clients with 200 requests each: none lost, throughput over bare's with 16 threads at least 0.8;
  each of bare's graphs runs in its caller's thread, which is its fastest then;
- kill -9 under load: clients see whole answers or broken connections; a restart serves.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from osteofusion.data.radiograph import RadiographPreprocessing
from osteofusion.files import write_text
from osteofusion.serving.bundle import MODEL, Bundle
from osteofusion.serving.radiographs import as_input

import onnxruntime as ort  # isort: skip (serving first: it turns telemetry off)

CLIENTS, REQUESTS, ROUNDS = 16, 200, 10
SINGLE, WARM = 150, 20
_HEAD = b'--b\r\nContent-Disposition: form-data; name="image"; filename="film"\r\n\r\n'
_HEADERS = {"Content-Type": "multipart/form-data; boundary=b"}


@contextmanager
def server(bundle: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The server process and its port."""
    command = [sys.executable, "-m", "osteofusion", "serve", str(bundle), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process, int(process.stdout.readline().rpartition(":")[2])
    finally:
        process.kill()
        process.wait()


class Client:
    """A connection that asks the same again and again."""

    def __init__(self, port: int, film: bytes) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._body = _HEAD + film + b"\r\n--b--\r\n"

    def __call__(self) -> None:
        self._connection.request("POST", "/v1/predict", self._body, _HEADERS)
        response = self._connection.getresponse()
        answer = json.loads(response.read())
        assert response.status == 200, answer
        assert 0 <= answer["risk"] <= 1


class Bare:
    """Decode, preprocess and ONNX Runtime, and nothing else."""

    def __init__(self, bundle: Bundle, film: bytes, threads: int) -> None:
        square = bundle.description.preprocessing
        assert square is not None, "this model reads no radiographs"
        self._prepare = RadiographPreprocessing(square.size, square.clahe, square.pixel_spacing)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        # As fast, and its threads do not spin on while it is the service's turn.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self._session = ort.InferenceSession(
            str(bundle.path(MODEL)), options, providers=["CPUExecutionProvider"]
        )
        self._film = film
        features = len(bundle.description.features)
        given = {
            "clinical": np.full((1, features), np.nan),
            "present": np.array([[True, False]]),
        }
        names = {put.name for put in self._session.get_inputs()}
        self._rest = {name: value for name, value in given.items() if name in names}

    def __call__(self) -> None:
        image = as_input(self._prepare.read(self._film, Path("film")))
        self._session.run(None, {"image": image[None], **self._rest})


def one_client(ask: Callable[[], None], bare: Callable[[], None]) -> dict[str, float]:
    """Median milliseconds of each, by turns, and their ratio."""
    times: dict[Callable[[], None], list[float]] = {ask: [], bare: []}
    for i in range(WARM + SINGLE):
        for work, taken in times.items():
            begun = time.perf_counter()
            work()
            if i >= WARM:
                taken.append(1000 * (time.perf_counter() - begun))
    service, plain = (statistics.median(taken) for taken in times.values())
    return {"service_ms": service, "bare_ms": plain, "ratio": service / plain}


def many_clients(port: int, film: bytes, bare: Callable[[], None]) -> dict[str, float]:
    """Requests a second of each at the same concurrency, by turns, and their ratio."""
    share = REQUESTS // ROUNDS
    taken = {"service": 0.0, "bare": 0.0}
    with ThreadPoolExecutor(CLIENTS) as pool:

        def together(jobs: list[Callable[[], None]]) -> float:
            begun = time.perf_counter()
            list(pool.map(lambda job: [job() for _ in range(share)], jobs))
            return time.perf_counter() - begun

        for _ in range(ROUNDS):
            # New connections: the server closes those that idle while bare has its turn.
            taken["service"] += together([Client(port, film) for _ in range(CLIENTS)])
            taken["bare"] += together([bare] * CLIENTS)
    total = CLIENTS * REQUESTS
    rates = {f"{name}_per_second": total / seconds for name, seconds in taken.items()}
    return {"requests": total, "lost": 0, **rates, "ratio": taken["bare"] / taken["service"]}


def kill_under_load(bundle: Path, film: bytes) -> dict[str, int]:
    """What 16 clients see when the server is killed while it works, and whether it comes back."""
    seen: Counter[str] = Counter()
    with server(bundle) as (process, port):
        end = threading.Event()

        def load(client: Client) -> None:
            while not end.is_set():
                try:
                    client()
                    seen["answered"] += 1
                except (OSError, http.client.HTTPException):  # anything else is no clean failure
                    seen["broken"] += 1
                    return

        with ThreadPoolExecutor(CLIENTS) as pool:
            running = [pool.submit(load, Client(port, film)) for _ in range(CLIENTS)]
            time.sleep(5)
            os.kill(process.pid, signal.SIGKILL)
            time.sleep(1)
            end.set()
            for future in running:
                future.result()
    with server(bundle) as (_, port):
        Client(port, film)()
    return {**seen, "served_after_restart": 1}


def main() -> None:
    """Measure, print, and hold to the bounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("film", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    film = options.film.read_bytes()
    bundle = Bundle.load(options.bundle)
    alone, beside_others = (Bare(bundle, film, threads) for threads in (os.cpu_count() or 1, 1))
    found: dict[str, object] = {
        "film_bytes": len(film),
        "processors": os.cpu_count(),
        "onnxruntime": ort.__version__,
        "load_before": os.getloadavg()[0],
    }
    with server(options.bundle) as (_, port):
        single = one_client(Client(port, film), alone)
        many = many_clients(port, film, beside_others)
    killed = kill_under_load(options.bundle, film)
    found |= {"one_client": single, "many_clients": many, "kill_9": killed}
    print(json.dumps(found, indent=2))
    if options.out is not None:
        write_text(options.out, json.dumps(found, indent=2) + "\n")
    assert single["ratio"] <= 1.5
    assert many["ratio"] >= 0.8
    assert killed["broken"] == CLIENTS


if __name__ == "__main__":
    main()
