"""Files are whole or absent, whatever happens meanwhile."""

from __future__ import annotations

import os
import stat
import subprocess
import sys

import pytest

from osteofusion.files import atomic_path, cache_root, write_text

FULL_DISK = """
import resource, sys
from osteofusion.files import write_text
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
write_text(sys.argv[1], "x" * 5000)
"""


def test_a_file_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "a folder" / "new.csv"
    with atomic_path(path) as temporary:
        assert temporary.suffix == ".csv"
        assert temporary.parent == path.parent
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert os.listdir(path.parent) == ["new.csv"]


def test_permissions_are_those_of_an_ordinary_file(tmp_path):
    (tmp_path / "ordinary").touch()
    write_text(tmp_path / "atomic", "x")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ordinary", "atomic")}
    assert len(modes) == 1


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "old.txt"
    write_text(path, "old ä")
    with pytest.raises(error), atomic_path(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise error
    assert path.read_text(encoding="utf-8") == "old ä"
    assert os.listdir(tmp_path) == ["old.txt"]


def test_a_full_disk_leaves_the_old_file(tmp_path):
    path = tmp_path / "old.txt"
    write_text(path, "old")
    run = subprocess.run([sys.executable, "-c", FULL_DISK, path], capture_output=True, text=True)
    assert "File too large" in run.stderr
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["old.txt"]


def test_a_rename_never_replaces_what_is_no_file(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("folder", "pipe"):
        with pytest.raises(FileExistsError, match=name):
            write_text(tmp_path / name, "x")
    assert sorted(os.listdir(tmp_path)) == ["folder", "pipe"]


def test_the_cache_folder_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("OSTEOFUSION_CACHE", str(tmp_path / "chosen"))
    assert cache_root() == tmp_path / "chosen"
    monkeypatch.delenv("OSTEOFUSION_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_root() == tmp_path / "osteofusion"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_root() == tmp_path / ".cache" / "osteofusion"
