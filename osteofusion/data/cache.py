"""Decoded, resized radiographs on disk, so that an epoch reads kilobytes and decodes nothing."""

from __future__ import annotations

import hashlib
import time
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress

from osteofusion.data.radiograph import (
    Gray,
    RadiographPreprocessing,
    read_bytes,
)
from osteofusion.errors import OsteofusionError, RadiographError
from osteofusion.files import atomic_path

_SUFFIX = ".gray"  # size * size bytes, then their CRC-32: half the time of .npy, and checked
_CHECKSUM = 4  # bytes
_ABANDONED = 3600  # seconds after which a temporary file has lost its writer


@dataclass(frozen=True)
class RadiographCache:
    """Cache of preprocessed radiographs in ``folder``, one file per content and setting.

    Entries are named by the SHA-256 of the image file and the key of the preprocessing, so a
    changed file or setting never meets an old entry. They are written whole or not at all, and
    threads, DataLoader workers and processes may share a folder.

    Args:
        folder: where entries live; made when first needed.
        preprocessing: what is done to a radiograph before it is stored.
    """

    folder: Path
    preprocessing: RadiographPreprocessing

    def get(self, path: Path, sha256: str) -> Gray:
        """Preprocessed radiograph, (size, size) uint8; built when absent or damaged.

        Args:
            path: the image file.
            sha256: its `content_hash`.

        Raises:
            RadiographError: the file cannot be read, or its content is not the one named.
            OsteofusionError: the entry cannot be written.
        """
        entry = self._entry(sha256)
        image = self._load(entry)
        if image is None:
            data = read_bytes(path)
            if hashlib.sha256(data).hexdigest() != sha256:
                raise RadiographError(
                    f"The radiograph {path} has changed since the cohort was read; read it again."
                )
            image = self.preprocessing.read(data, path)
            self._store(entry, image)
        return image

    def fill(self, items: Iterable[tuple[Path, str]], workers: int, progress: bool) -> None:
        """Build the entries of all ``items``, pairs of image file and its `content_hash`.

        Args:
            items: what `get` takes.
            workers: number of threads (at least one runs); decoders release Python's lock.
            progress: whether to draw a progress bar on stderr.

        Raises:
            RadiographError: files cannot be read; the first few are named after all were tried.
            OsteofusionError: the cache cannot be written.
        """
        self._sweep()
        items = [item for item in items if self._load(self._entry(item[1])) is None]
        if not items:
            return
        console = Console(stderr=True)
        pool = ThreadPoolExecutor(max(1, workers))
        refusals = []
        try:
            with Progress(console=console, disable=not progress) as bar:
                task = bar.add_task("Reading radiographs", total=len(items))
                for refusal in pool.map(self._try, items):
                    bar.advance(task)
                    refusals += [refusal] if refusal else []
        finally:
            pool.shutdown(cancel_futures=True)  # on Ctrl-C or a full disk, leave at once
        if len(refusals) == 1:
            raise refusals[0]
        if refusals:
            shown = " ".join(str(refusal) for refusal in refusals[:3])
            raise RadiographError(
                f"{len(refusals)} of {len(items)} radiographs cannot be read. "
                f"{'The first three: ' if len(refusals) > 3 else ''}{shown}"
            )

    def _entry(self, sha256: str) -> Path:
        return self.folder / self.preprocessing.key / f"{sha256}{_SUFFIX}"

    def _try(self, item: tuple[Path, str]) -> RadiographError | None:
        try:
            self.get(*item)
        except RadiographError as error:
            return error
        return None

    def _load(self, entry: Path) -> Gray | None:
        size = self.preprocessing.size
        try:
            data = np.fromfile(entry, dtype=np.uint8)
        except OSError:
            return None
        image, checksum = data[:-_CHECKSUM], data[-_CHECKSUM:]
        if image.size != size * size or _crc32(image) != checksum.tobytes():
            return None
        return image.reshape(size, size)

    def _store(self, entry: Path, image: Gray) -> None:
        try:
            with atomic_path(entry) as temporary:
                temporary.write_bytes(image.tobytes() + _crc32(image))
        except OSError as error:
            raise OsteofusionError(
                f"The image cache {self.folder} cannot be written ({error.strerror}): make room "
                "or access, or set $OSTEOFUSION_CACHE to another folder."
            ) from error

    def _sweep(self) -> None:
        """Remove the temporary files of writers that were killed."""
        before = time.time() - _ABANDONED
        for temporary in (self.folder / self.preprocessing.key).glob(f".*{_SUFFIX}"):
            with suppress(OSError):
                if temporary.stat().st_mtime < before:
                    temporary.unlink()


def _crc32(image: Gray) -> bytes:
    return zlib.crc32(image.tobytes()).to_bytes(_CHECKSUM, "big")
