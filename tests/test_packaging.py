"""The wheel: configs, manifests and types inside, and usable from an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
READ = """
import sys
from pathlib import Path
import osteofusion
from osteofusion.data.manifest import load_manifest
from osteofusion.resources import find_shipped, shipped_names
assert Path(osteofusion.__file__).is_relative_to(sys.argv[1]), osteofusion.__file__
for kind in ("configs", "configs/studies", "manifests"):
    for name in shipped_names(kind):
        assert find_shipped(kind, name).is_relative_to(sys.argv[1])
        print(f"{kind}/{name}")
assert (Path(osteofusion.__file__).parent / "notebooks" / "walkthrough.ipynb").is_file()
assert load_manifest("mendeley").name == "mendeley"
assert find_shipped("configs", "../manifests/demo.yaml") is None
"""


def shipped(kind):
    return {path.relative_to(ROOT).as_posix() for path in (ROOT / kind).rglob("*.yaml")}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    if find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed, and a test fetches nothing")
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return next(out.glob("*.whl"))


def test_the_wheel_holds_what_a_user_needs(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        f"osteofusion/{name}" for kind in ("configs", "manifests") for name in shipped(kind)
    }
    assert expected | {"osteofusion/py.typed", "osteofusion/cli.py"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "configs/"))]


def test_the_wheel_works_from_an_empty_folder(wheel, tmp_path):
    site, empty = tmp_path / "site", tmp_path / "empty"
    zipfile.ZipFile(wheel).extractall(site)
    empty.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", READ, str(site)],
        cwd=empty,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == shipped("configs") | shipped("manifests")
    assert list(empty.iterdir()) == []
