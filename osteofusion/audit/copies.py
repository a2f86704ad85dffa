"""Find copies of one film among many: re-encoded, resized, mirrored, cropped, altered."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from scipy.cluster.hierarchy import DisjointSet

from osteofusion.audit.copy_check import Comparison, compare, register
from osteofusion.audit.copy_features import CodedFeatures, Coder, Features, extract_features
from osteofusion.audit.copy_index import Candidate, find_candidates
from osteofusion.data.radiograph import content_hash, read_radiograph
from osteofusion.errors import RadiographError
from osteofusion.progress import shown

CopyKind = Literal["identical", "mirrored", "cropped", "altered", "resized", "re-encoded"]

_MIN_SIDE = 64
_MIN_FEATURES = 16
_SAMPLE = 128  # films that the codes of features are learnt from
_BATCH = 256  # candidates compared before asking which films are tied together already
# What a change must exceed to be named; a turn by 2 degrees alone costs 4 % of the overlap.
_CROPPED, _TURNED, _BRIGHTENED, _RESIZED = 0.95, 0.5, 6, 0.01

_Matrix = tuple[tuple[float, float, float], ...]


@dataclass(frozen=True)
class CopyPair:
    """Two files that show one film.

    Attributes:
        a: position of the first file among those searched.
        b: position of the second, larger than `a`.
        kind: what was done, the most telling where there is more: `mirrored`, `cropped`, `altered`
            (turned, or another brightness), `resized`, `re-encoded`; `identical` bytes.
        mirrored: whether one is the mirror image of the other.
        correlation: 1 for identical bytes, else the correlation of fine detail that confirmed it.
        overlap: share of the one of which less is seen that the other shows: 1 for whole films,
            0.25 for a crop to half the height and half the width.
        rotation: degrees by which the first is turned, before any mirroring.
        transform: (3, 3) affine map of the first one's pixels to the second one's, in rows.
    """

    a: int
    b: int
    kind: CopyKind
    mirrored: bool = False
    correlation: float = 1.0
    overlap: float = 1.0
    rotation: float = 0.0
    transform: _Matrix = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


@dataclass(frozen=True)
class CopySearch:
    """Result of :func:`find_copies`.

    Attributes:
        pairs: identical files, then other copies, most certain first. Pairs tie all files of one
            film together, but not each with each: n files have n - 1 pairs. Of identical files
            each is paired with the first.
        unreadable: position of each file that is no radiograph, and the reason.
        undecided: position of each film of which only identical files can be found, and the reason.
    """

    pairs: list[CopyPair]
    unreadable: list[tuple[int, str]]
    undecided: list[tuple[int, str]]

    @property
    def films(self) -> list[list[int]]:
        """Positions of the files that show one film, for each film of several files."""
        tied = DisjointSet([position for pair in self.pairs for position in (pair.a, pair.b)])
        for pair in self.pairs:
            tied.merge(pair.a, pair.b)
        return sorted(sorted(members) for members in tied.subsets())


def find_copies(
    paths: Sequence[Path], *, progress: bool = False, workers: int | None = None
) -> CopySearch:
    """Find files that show one film without comparing all pairs.

    Files of equal SHA-256 count as one. SIFT features in an index of binary codes name a few
    candidates for each film, mirrored ones among them; a candidate is a copy when the two can be
    registered and their fine detail then correlates more than that of different knees would at
    this resolution. Crops down to half of each side are found, single knees out of a film of both,
    and turns by any angle.

    Args:
        paths: image files.
        progress: show progress bars on standard error.
        workers: threads; by default one for each processor.
    """
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        refused: dict[int, _Refusal] = {}
        same: dict[str, list[int]] = {}
        digests = pool.map(_digest, paths)
        for i, digest in enumerate(shown(digests, len(paths), "Hashing radiographs", progress)):
            if isinstance(digest, _Refusal):
                refused[i] = digest
            else:
                same.setdefault(digest, []).append(i)
        groups = {members[0]: members for members in same.values()}
        coded: dict[int, CodedFeatures] = {}
        described = _describe([paths[i] for i in groups], pool, progress)
        for (first, members), item in zip(groups.items(), described, strict=True):
            if isinstance(item, _Refusal):
                refused |= dict.fromkeys(members, item)
            else:
                coded[first] = item
        pairs = [
            CopyPair(first, other, "identical")
            for first, members in groups.items()
            for other in members[1:]
            if first in coded or not refused[first].unreadable
        ]
        pairs += _confirmed(coded, paths, pool, progress)
    pairs.sort(key=lambda pair: (pair.kind != "identical", -pair.correlation, pair.a, pair.b))
    reasons = sorted((i, refusal.reason, refusal.unreadable) for i, refusal in refused.items())
    return CopySearch(
        pairs=pairs,
        unreadable=[(i, reason) for i, reason, unreadable in reasons if unreadable],
        undecided=[(i, reason) for i, reason, unreadable in reasons if not unreadable],
    )


@dataclass(frozen=True)
class _Refusal:
    """Why a file cannot be searched: it is no radiograph, or shows too little."""

    reason: str
    unreadable: bool


def _digest(path: Path) -> str | _Refusal:
    try:
        return content_hash(path)
    except RadiographError as error:
        return _Refusal(str(error), unreadable=True)


def _features(path: Path) -> Features | _Refusal:
    try:
        image = read_radiograph(path)
    except RadiographError as error:
        return _Refusal(str(error), unreadable=True)
    if max(image.shape) < _MIN_SIDE:
        size = f"{image.shape[0]} x {image.shape[1]} pixels"
        return _Refusal(f"{path} has {size}, too few to tell films apart", unreadable=False)
    found = extract_features(image)
    if len(found.points) < _MIN_FEATURES:
        return _Refusal(f"{path} shows too little detail to tell films apart", unreadable=False)
    return found


def _describe(
    paths: list[Path], pool: ThreadPoolExecutor, progress: bool
) -> Iterable[CodedFeatures | _Refusal]:
    """Features of each file, in the code that is learnt from some of them, in their order."""
    sample = pool.map(_features, paths[:: max(1, len(paths) // _SAMPLE)])
    coder = Coder([item for item in sample if isinstance(item, Features)])

    def code(path: Path) -> CodedFeatures | _Refusal:
        found = _features(path)
        return coder(found) if isinstance(found, Features) else found

    return shown(pool.map(code, paths), len(paths), "Reading radiographs", progress)


def _confirmed(
    coded: dict[int, CodedFeatures], paths: Sequence[Path], pool: ThreadPoolExecutor, progress: bool
) -> Iterator[CopyPair]:
    """Candidates that prove to be copies."""
    position = list(coded)
    candidates = find_candidates(list(coded.values()))
    tied = DisjointSet(position)

    def confirm(candidate: Candidate) -> CopyPair | None:
        a, b = position[candidate.a], position[candidate.b]
        matrix = register(coded[a], coded[b], mirrored=candidate.mirrored)
        if matrix is None:
            return None
        pictures = read_radiograph(paths[a]), read_radiograph(paths[b])
        found = compare(*pictures, matrix, mirrored=candidate.mirrored)
        return _pair(a, b, found) if found is not None and found.same_film else None

    batches = [candidates[i : i + _BATCH] for i in range(0, len(candidates), _BATCH)]
    for batch in shown(batches, len(batches), "Comparing candidates", progress):
        # Films already tied together need no further proof, so many copies of one film cost no
        # more than one comparison each.
        open_ = [c for c in batch if not tied.connected(position[c.a], position[c.b])]
        for pair in pool.map(confirm, open_):
            if pair is not None and tied.merge(pair.a, pair.b):
                yield pair


def _pair(a: int, b: int, found: Comparison) -> CopyPair:
    overlap = min(found.overlap_a, found.overlap_b)
    kind: CopyKind = "re-encoded"
    if found.mirrored:
        kind = "mirrored"
    elif overlap < _CROPPED:
        kind = "cropped"
    elif abs(found.rotation) > _TURNED or found.brightness > _BRIGHTENED:
        kind = "altered"
    elif abs(found.scale - 1) > _RESIZED:
        kind = "resized"
    return CopyPair(
        a,
        b,
        kind,
        mirrored=found.mirrored,
        correlation=found.correlation,
        overlap=overlap,
        rotation=found.rotation,
        transform=tuple((float(x), float(y), float(z)) for x, y, z in found.transform),
    )
