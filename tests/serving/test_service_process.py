"""How the server process starts, waits, ends, and what it leaves behind."""

from __future__ import annotations

import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from service_process import Server, refused, serving

from osteofusion.cli import main

HEAD = (
    b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n"
    b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
)


def film(side: int = 1600) -> bytes:
    """A PNG of noise, larger than what frameworks keep in memory."""
    pixels = np.random.default_rng(0).integers(0, 255, (side, side), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    assert out.tell() > 2_000_000
    return out.getvalue()


def body(image: bytes) -> bytes:
    start = b'--b\r\nContent-Disposition: form-data; name="image"; filename="x.png"\r\n\r\n'
    return start + image + b"\r\n--b--\r\n"


@contextmanager
def half_sent(server: Server, image: bytes):
    """A connection that has sent half of an upload, and the other half."""
    whole = body(image)
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(HEAD % len(whole) + whole[: len(whole) // 2])
        time.sleep(0.3)  # until the server has it
        yield connection, whole[len(whole) // 2 :]


def answer_on(connection: socket.socket) -> tuple[int, dict]:
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response.status, json.loads(response.read())


def refusal(capsys, *arguments: str) -> str:
    assert main(["serve", *map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("osteofusion: error: ")
    return err


def test_mistakes_are_said_in_one_sentence(capsys, bundle_folder, tmp_path, monkeypatch):
    monkeypatch.delenv("OSTEOFUSION_API_KEY", raising=False)
    assert "bundle.json" in refusal(capsys, tmp_path, "--port", "0")
    assert "--api-key-file" in refusal(capsys, bundle_folder, "--host", "0.0.0.0")
    assert "--timeout" in refusal(capsys, bundle_folder, "--timeout", "0")
    assert "--queue" in refusal(capsys, bundle_folder, "--queue", "-1")
    assert "--port 70000" in refusal(capsys, bundle_folder, "--port", "70000")
    assert "--host 192.0.2.1" in refusal(
        capsys, bundle_folder, "--host", "192.0.2.1", "--api-key-file", _key(tmp_path, "k" * 20)
    )
    for content in ("", "short", "with some spaces in it", "Schlüssel-zur-Klinik-1"):
        key = _key(tmp_path, content)
        assert "key" in refusal(capsys, bundle_folder, "--api-key-file", key)
    assert "cannot be read" in refusal(capsys, bundle_folder, "--api-key-file", tmp_path)
    monkeypatch.setenv("OSTEOFUSION_API_KEY", "")
    assert "OSTEOFUSION_API_KEY" in refusal(capsys, bundle_folder)
    monkeypatch.delenv("OSTEOFUSION_API_KEY")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"--port {port} is in use" in refusal(capsys, bundle_folder, "--port", port)


def _key(folder: Path, content: str) -> Path:
    path = folder / "key.txt"
    path.write_text(content + "\n", encoding="utf-8")
    return path


def test_a_missing_extra_is_said_in_one_sentence():
    code = (
        "import sys; sys.modules['uvicorn'] = None\n"
        "from osteofusion.cli import main; sys.exit(main(['serve', 'x']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "pip install 'osteofusion[serve]'" in done.stderr


def test_serving_imports_no_torch():
    code = (
        "import sys, osteofusion.serving.server\n"
        "heavy = {'torch', 'timm', 'captum', 'pytorch_lightning'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_nothing_of_an_upload_reaches_the_disk_and_kill_9_leaves_nothing(bundle_folder, tmp_path):
    with serving(bundle_folder, tmp_path) as server:
        image = film()
        with server.client() as client:  # everything that could write has run once
            answer = client.post("/v1/predict", files={"image": image}).json()
            for link in answer["links"].values():
                client.get(link).raise_for_status()
        assert server.written() == []
        with half_sent(server, image):
            assert server.written() == []
            os.kill(server.process.pid, signal.SIGKILL)
            server.process.wait()
        assert list(server.scratch.iterdir()) == []
        assert server.log.read_text() == ""
        port = str(server.port)
    with serving(bundle_folder, tmp_path, "--port", port) as again, again.client() as client:
        assert client.post("/v1/predict", files={"image": image}).status_code == 200
        refused(client.get(answer["links"]["report"]), 404, "unknown_result", "result_id")


def test_a_signal_lets_it_finish_what_it_accepted(bundle_folder, tmp_path):
    with serving(bundle_folder, tmp_path) as server:
        with half_sent(server, film()) as (connection, rest), server.client() as idle:
            assert idle.get("/health").status_code == 200
            server.process.send_signal(signal.SIGTERM)
            _wait_until_it_refuses(server)
            with pytest.raises(httpx.TransportError):
                idle.get("/health")
            assert server.process.poll() is None
            connection.sendall(rest)
            status, said = answer_on(connection)
        assert status == 200
        assert said["image_present"]
        assert server.process.wait(timeout=30) == 0
        assert server.log.read_text() == ""


def test_a_second_signal_ends_it_at_once(bundle_folder, tmp_path):
    with serving(bundle_folder, tmp_path) as server, half_sent(server, film()):
        server.process.send_signal(signal.SIGINT)
        _wait_until_it_refuses(server)
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(timeout=10) == -signal.SIGINT
        assert list(server.scratch.iterdir()) == []


def _wait_until_it_refuses(server: Server) -> None:
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", server.port), timeout=5).close()
        except OSError:
            return
        time.sleep(0.1)
    pytest.fail("the server still takes connections 10 s after the signal")


def test_who_dawdles_is_sent_away(bundle_folder, tmp_path):
    with serving(bundle_folder, tmp_path, "--timeout", "1") as server:
        address = ("127.0.0.1", server.port)
        with (
            half_sent(server, film()) as (slow, _),
            socket.create_connection(address, timeout=15) as silent,
            socket.create_connection(address, timeout=15) as drip,
        ):
            begun = time.monotonic()
            drip.sendall(b"GET /health HTTP/1.1\r\nHost: 127")
            assert silent.recv(1) == b""
            assert drip.recv(1) == b""
            status, said = answer_on(slow)
            assert (status, said["code"]) == (408, "slow_upload")
            assert slow.recv(1) == b""
            assert time.monotonic() - begun < 10
        with socket.create_connection(address, timeout=15) as wrong:
            wrong.sendall(b"no http at all\r\n\r\n")
            status, said = answer_on(wrong)
            assert (status, said["code"]) == (400, "malformed_request")
        with server.client() as client:
            assert client.get("/ready").status_code == 200


def test_a_full_queue_says_so(bundle_folder, tmp_path):
    options = ("--threads", "1", "--queue", "1")
    values = {"files": {"values": (None, '{"age": 61}')}}
    with serving(bundle_folder, tmp_path, *options) as server, server.client() as client:
        with half_sent(server, film()) as (first, rest):
            assert client.get("/ready").status_code == 200
            with half_sent(server, film()):
                response = client.post("/v1/predict", **values)
                refused(response, 429, "busy")
                assert response.headers["retry-after"] == "1"
                refused(client.get("/ready"), 429, "busy")
                assert client.get("/health").status_code == 200
            first.sendall(rest)
            assert answer_on(first)[0] == 200
        for _ in range(50):  # until the server has seen the other one leave
            if client.get("/ready").status_code == 200:
                break
            time.sleep(0.1)
        assert client.post("/v1/predict", **values).status_code == 200
