"""The real server process, for tests: started, looked into, ended."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

PROBLEM = "application/problem+json"


@dataclass
class Server:
    """A running `osteofusion serve`; `scratch` is its folder for temporary files."""

    process: subprocess.Popen[str]
    url: str
    scratch: Path
    log: Path

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def client(self, **headers: str) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers=headers, timeout=60)

    def memory(self) -> int:
        """Bytes that it holds in memory."""
        fields = Path(f"/proc/{self.process.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")

    def written(self) -> list[str]:
        """Files that it has made, or holds open though they are unlinked."""
        found = [str(path) for path in self.scratch.rglob("*")]
        for link in Path(f"/proc/{self.process.pid}/fd").glob("*"):
            try:
                target = os.readlink(link)
            except OSError:
                continue
            if "(deleted)" in target or target.startswith(str(self.scratch)):
                found.append(target)
        return found


@contextmanager
def serving(bundle: Path, scratch: Path, *options: str, **environment: str) -> Iterator[Server]:
    """A server on a free port, and killed in the end if it still runs."""
    (scratch / "tmp").mkdir(parents=True, exist_ok=True)
    log = scratch / "stderr.txt"
    port = () if "--port" in options else ("--port", "0")
    with log.open("a") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "osteofusion", "serve", str(bundle), *port, *options],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            cwd=scratch / "tmp",
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "TMPDIR": str(scratch / "tmp"),
                **environment,
            },
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("Serving at http://"), log.read_text()
        yield Server(process, line.split()[-1], scratch / "tmp", log)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def refused(response: httpx.Response, status: int, code: str, field: str | None = None) -> None:
    """Hold an answer to be that refusal, as problem JSON."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == PROBLEM
    said = response.json()
    assert set(said) == {"type", "title", "status", "detail", "field", "code"}
    assert (said["status"], said["code"], said["field"]) == (status, code, field), said
    assert said["type"] == "about:blank"
    assert said["detail"].endswith((".", "?"))
