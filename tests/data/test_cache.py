"""The radiograph cache under changes, damage, threads, processes and kills."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from osteofusion.data.cache import RadiographCache
from osteofusion.data.radiograph import RadiographPreprocessing, content_hash, read_radiograph
from osteofusion.errors import OsteofusionError, RadiographError

PREPROCESSING = RadiographPreprocessing(64)

# Runs in a process of its own: fills argv[2] from the images of argv[1].
FILL = """
import sys
from pathlib import Path
from osteofusion.data.cache import RadiographCache
from osteofusion.data.radiograph import RadiographPreprocessing, content_hash
items = [(path, content_hash(path)) for path in sorted(Path(sys.argv[1]).iterdir())]
print("ready", flush=True)
sys.stdin.readline()
RadiographCache(Path(sys.argv[2]), RadiographPreprocessing(64)).fill(items, 2, progress=False)
"""


def make_images(folder, count, shape=(80, 120)):
    folder.mkdir()
    generator = np.random.default_rng(0)
    for i in range(count):
        pixels = generator.integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:03}.png")
    return [(path, content_hash(path)) for path in sorted(folder.iterdir())]


@pytest.fixture
def items(tmp_path):
    return make_images(tmp_path / "images", 6)


@pytest.fixture
def cache(tmp_path):
    return RadiographCache(tmp_path / "cache", PREPROCESSING)


def entries(cache):
    return sorted(path for path in cache.folder.rglob("*") if path.is_file())


def assert_right(cache, items):
    for path, sha256 in items:
        np.testing.assert_array_equal(cache.get(path, sha256), PREPROCESSING(read_radiograph(path)))


def start(items, cache):
    command = [sys.executable, "-c", FILL, str(items[0][0].parent), str(cache.folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def go(process):
    process.stdin.write("\n")
    process.stdin.flush()


def test_get_builds_once_and_reads_thereafter(cache, items):
    assert_right(cache, items)
    stamps = {path: path.stat().st_mtime_ns for path in entries(cache)}
    assert len(stamps) == len(items)
    for path, _ in items:
        path.unlink()  # a cached radiograph needs its file no more
    for path, sha256 in items:
        image = cache.get(path, sha256)
        assert image.shape == (64, 64)
        assert image.dtype == np.uint8
    assert {path: path.stat().st_mtime_ns for path in entries(cache)} == stamps


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_fill_builds_everything(cache, items, workers, capfd):
    cache.fill(items, workers, progress=False)
    assert len(entries(cache)) == len(items)
    assert_right(cache, items)
    assert capfd.readouterr() == ("", "")


def test_progress_is_drawn_on_stderr(cache, items, capfd):
    cache.fill(iter(items), 2, progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "Reading radiographs" in err
    assert "100%" in err


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: bytes(len(data)),  # what a power cut leaves on some file systems
        lambda data: b"garbage",
        lambda data: data[:100] + bytes([data[100] ^ 1]) + data[101:],
        lambda data: data + b"more",
    ],
    ids=["empty", "half", "zeros", "garbage", "one bit", "longer"],
)
def test_a_damaged_entry_is_rebuilt(cache, items, damage):
    cache.fill(items, 2, progress=False)
    whole = {path: path.read_bytes() for path in entries(cache)}
    for path, data in whole.items():
        path.write_bytes(damage(data))
    assert_right(cache, items[:3])
    cache.fill(items, 2, progress=False)
    assert {path: path.read_bytes() for path in entries(cache)} == whole


def test_a_changed_file_or_setting_reads_nothing_stale(cache, items):
    cache.fill(items, 2, progress=False)
    path, old = items[0]
    Image.fromarray(np.full((70, 70), 200, np.uint8)).save(path)
    new = content_hash(path)
    assert (cache.get(path, new) == 200).all()
    assert (cache.get(path, old) != 200).any()

    for other in (RadiographPreprocessing(32), RadiographPreprocessing(64, clahe=True)):
        image = RadiographCache(cache.folder, other).get(*items[1])
        np.testing.assert_array_equal(image, other(read_radiograph(items[1][0])))


def test_new_content_is_never_stored_under_an_old_hash(cache, items):
    (path, sha256), (other, _) = items[:2]
    path.write_bytes(other.read_bytes())
    with pytest.raises(RadiographError, match=rf"{path.name} has changed"):
        cache.get(path, sha256)
    assert entries(cache) == []


def test_all_unreadable_files_are_tried_before_fill_complains(cache, items):
    bad = []
    for i, (path, _) in enumerate(items[:-1]):
        path.write_bytes(path.read_bytes()[:200] + bytes([i]))
        bad.append((path, content_hash(path)))
    with pytest.raises(RadiographError) as caught:
        cache.fill([*bad, items[-1]], 2, progress=False)
    message = str(caught.value)
    assert "5 of 6 radiographs cannot be read" in message
    assert [path.name in message for path, _ in bad] == [True, True, True, False, False]
    assert len(entries(cache)) == 1  # the good one is there

    with pytest.raises(RadiographError) as caught:
        cache.fill(bad[:1], 2, progress=False)
    with pytest.raises(RadiographError) as alone:
        read_radiograph(bad[0][0])
    assert str(caught.value) == str(alone.value)


def test_a_cache_that_cannot_be_written_is_named(tmp_path, items):
    (tmp_path / "occupied").write_text("a file, not a folder")
    cache = RadiographCache(tmp_path / "occupied", PREPROCESSING)
    for attempt in (lambda: cache.get(*items[0]), lambda: cache.fill(items, 2, progress=False)):
        with pytest.raises(OsteofusionError, match=r"occupied.*\$OSTEOFUSION_CACHE") as caught:
            attempt()
        assert not isinstance(caught.value, RadiographError)


def test_a_full_disk_leaves_nothing_behind(cache, items):
    """The largest file size that a process may write stands in for the disk's end."""
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))" + FILL
    done = subprocess.run(
        [sys.executable, "-c", limited, str(items[0][0].parent), str(cache.folder)],
        input="\n",
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert f"The image cache {cache.folder} cannot be written" in done.stderr.splitlines()[-1]
    assert entries(cache) == []


def test_two_processes_fill_one_cache_at_once(tmp_path, cache):
    items = make_images(tmp_path / "many", 40)
    processes = [start(items, cache) for _ in range(2)]
    for process in processes:
        go(process)
    for process in processes:
        assert process.wait(timeout=60) == 0
    assert len(entries(cache)) == len(items)
    before = {path: path.stat().st_mtime_ns for path in entries(cache)}
    assert_right(cache, items)
    assert {path: path.stat().st_mtime_ns for path in entries(cache)} == before


def test_kill_9_during_fill_then_refill(tmp_path, cache):
    items = make_images(tmp_path / "large", 40, shape=(700, 700))
    reference = RadiographCache(tmp_path / "reference", PREPROCESSING)
    reference.fill(items, 2, progress=False)
    right = {path.name: path.read_bytes() for path in entries(reference)}

    def finished():
        return [path for path in entries(cache) if not path.name.startswith(".")]

    for kill_after in (1, 12):
        process = start(items, cache)
        go(process)
        while len(finished()) < kill_after:
            assert process.poll() is None
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        assert process.wait(timeout=60) == -signal.SIGKILL
        assert kill_after <= len(finished()) < len(items)
        for path in finished():
            assert path.read_bytes() == right[path.name]

    cache.fill(items, 2, progress=False)
    assert {path.name: path.read_bytes() for path in finished()} == right


def test_fill_sweeps_what_dead_writers_left_and_spares_the_living(cache, items):
    cache.fill(items[:1], 1, progress=False)
    (entry,) = entries(cache)
    dead = entry.with_name(f".{entry.stem}-dead{entry.suffix}")
    alive = entry.with_name(f".{entry.stem}-alive{entry.suffix}")
    for path in (dead, alive):
        path.write_bytes(b"half an image")
    two_hours_ago = time.time() - 7200
    os.utime(dead, (two_hours_ago, two_hours_ago))
    os.utime(entry, (two_hours_ago, two_hours_ago))
    cache.fill(items[:1], 1, progress=False)
    assert set(entries(cache)) == {entry, alive}


def test_the_cache_is_relocatable(tmp_path, cache, items):
    cache.fill(items, 2, progress=False)
    moved = Path(cache.folder).rename(tmp_path / "elsewhere")
    for path, _ in items:
        path.unlink()
    image = RadiographCache(moved, PREPROCESSING).get(*items[0])
    assert image.shape == (64, 64)
