"""Files are written whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from osteofusion.errors import OsteofusionError


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; rename it to ``path`` when the block succeeds.

    A reader sees the old file or the new one, never a part; an exception leaves nothing behind.
    The temporary name keeps the suffix, since writers choose their format by it.
    """
    path = Path(path)
    if path.exists() and not path.is_file():  # a rename would replace even /dev/stdout
        raise FileExistsError(errno.EEXIST, "exists and is no file", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_UMASK)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a new folder beside ``path``; rename it to ``path`` when the block succeeds.

    ``path`` may be an empty folder; an exception leaves nothing behind.

    Raises:
        OsteofusionError: ``path`` exists and is not an empty folder.
    """
    path = Path(path).resolve()
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise OsteofusionError(f"{path} already exists; remove it or choose another folder.")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        yield temporary
        temporary.chmod(0o777 & ~_UMASK)
        if path.exists():
            path.rmdir()  # Windows does not rename over an empty folder
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def cache_root() -> Path:
    """Folder for derived data: ``$OSTEOFUSION_CACHE``, else the user's cache folder."""
    chosen = os.environ.get("OSTEOFUSION_CACHE")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "osteofusion"


def _umask() -> int:
    mask = os.umask(0)  # the only way to read it is to set it
    os.umask(mask)
    return mask


_UMASK = _umask()  # read once: setting it is not safe beside threads that write
