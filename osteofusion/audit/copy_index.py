"""Which radiographs share many local features, found without comparing all pairs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from osteofusion.audit.copy_features import SIDE, CodedFeatures, Codes, Floats

_WORDS = 2  # of 64 bits in a code
_LISTS = 8
_NEIGHBOURS = 4
_MAX_HAMMING = 20  # of 128 bits; three in four of a copy's features differ in at most 18
_MIN_VOTES = 3
_PARTNERS = 4  # a copy's own original is nearly always its first partner
_CELL = SIDE / 4
_BATCH = 32  # radiographs whose matches are counted at a time
_CHUNK = 1 << 16  # rows compared at a time, so that they stay in the processor's cache

_Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Candidate:
    """Two radiographs, by position, that may show the same film; `votes` features agree on how."""

    a: int
    b: int
    mirrored: bool
    votes: int


def find_candidates(coded: list[CodedFeatures]) -> list[Candidate]:
    """Pairs that share features in one arrangement, those that share most first.

    All codes, and those of the mirrored radiographs, are sorted several times, each time by other
    bits, and compared with their next neighbours alone (Charikar, STOC 2002). Pairs of similar
    features vote for a change of size and direction. Each radiograph keeps its best partners; so
    work and result grow with the number of radiographs, not of pairs.
    """
    sizes = [len(item.codes) for item in coded]
    image = np.repeat(np.arange(len(coded)), sizes)
    if not len(image):
        return []
    points = np.concatenate([item.points for item in coded])
    codes = np.concatenate([*(item.codes for item in coded), *(item.flipped for item in coded)])
    matches = np.zeros(0, np.int64)
    for turn in range(_LISTS):  # the lists find most matches again, so they are united one by one
        matches = np.concatenate([matches, *_similar(codes, image, turn)])
        matches.sort()  # np.unique hashes, at several times the memory and the time
        matches = matches[np.diff(matches, prepend=-1) > 0]
    # Votes are counted for some radiographs at a time, each with all its matches.
    first_feature = np.cumsum([0, *sizes])[_BATCH:-1:_BATCH]
    pairs, votes = [], []
    for batch in np.split(matches, np.searchsorted(matches, first_feature * len(image) * 2)):
        mirrored = batch % 2 == 1
        first, second = np.divmod(batch // 2, len(image))
        pair = (image[first] * len(coded) + image[second]) * 2 + mirrored
        some, count = _agreeing(points[first], points[second], mirrored, pair)
        pairs.append(some[count >= _MIN_VOTES])
        votes.append(count[count >= _MIN_VOTES])
    return _best_partners(np.concatenate(pairs), np.concatenate(votes), len(coded))


def _similar(codes: Codes, image: _Ints, turn: int) -> Iterator[_Ints]:
    """Similar features of different radiographs as (first * N + second) * 2 + mirrored."""
    n_features = len(image)
    order = np.argsort(_leading_bits(codes, turn * 64 * _WORDS // _LISTS), kind="stable")
    for start in range(0, len(codes), _CHUNK):
        index = order[start : start + _CHUNK + _NEIGHBOURS]
        here = codes[index]
        for step in range(1, _NEIGHBOURS + 1):
            near = np.flatnonzero(_hamming(here[:-step], here[step:]) <= _MAX_HAMMING)
            i, j = index[near], index[near + step]
            flipped_i, flipped_j = i >= n_features, j >= n_features
            i, j = i % n_features, j % n_features
            # Two mirrored features say what the same two unmirrored ones say.
            useful = (image[i] != image[j]) & ~(flipped_i & flipped_j)
            i, j = np.minimum(i, j)[useful], np.maximum(i, j)[useful]
            yield (i * n_features + j) * 2 + (flipped_i | flipped_j)[useful]


def _leading_bits(codes: Codes, skip: int) -> Codes:
    """64 bits of each code from bit `skip` on, going round at the end."""
    word, bits = divmod(skip, 64)
    high, low = codes[:, word], codes[:, (word + 1) % _WORDS]
    if not bits:
        return high
    return (high << np.uint64(bits)) | (low >> np.uint64(64 - bits))


def _hamming(a: Codes, b: Codes) -> NDArray[np.uint64]:
    """Differing bits of each pair of codes; numpy counts bits itself from 2.0 on only."""
    bits = a ^ b
    bits -= (bits >> np.uint64(1)) & np.uint64(0x5555555555555555)
    fours = np.uint64(0x3333333333333333)
    bits = (bits & fours) + ((bits >> np.uint64(2)) & fours)
    total = bits.sum(axis=1)  # at most 2 * 4 in four bits, so nothing is carried over
    eights = np.uint64(0x0F0F0F0F0F0F0F0F)
    total = (total & eights) + ((total >> np.uint64(4)) & eights)
    counts: Codes = (total * np.uint64(0x0101010101010101)) >> np.uint64(56)
    return counts


def _agreeing(
    first: Floats, second: Floats, mirrored: NDArray[np.bool_], pair: _Ints
) -> tuple[_Ints, _Ints]:
    """Each pair of radiographs and the most matches that agree on one similarity transform.

    A Hough transform as in Lowe, IJCV 2004: each match alone says how one radiograph would be
    turned, scaled and moved onto the other.
    """
    angle = np.where(mirrored, 180 - second[:, 3], second[:, 3]) - first[:, 3]
    ratio = second[:, 2] / first[:, 2]
    turn = np.deg2rad(angle)
    x, y = ratio * (SIDE / 2 - first[:, :2]).T  # a fixed point of the first, seen from the match
    target_x = np.where(mirrored, SIDE - second[:, 0], second[:, 0])
    moved_x = target_x + np.cos(turn) * x - np.sin(turn) * y
    moved_y = second[:, 1] + np.sin(turn) * x + np.cos(turn) * y
    # Bins are 30 degrees, 2/3 of an octave and a quarter of the side wide.
    places = (angle % 360 / 30, np.log2(ratio) * 1.5 + 16, moved_x / _CELL + 8, moved_y / _CELL + 8)
    low = [np.floor(place - 0.5).astype(np.int64) for place in places]
    bins = []
    # Every match votes for the two nearest bins of each, so that no border divides the votes.
    for shift in itertools.product((0, 1), repeat=4):
        key = pair * 12 + (low[0] + shift[0]) % 12
        for place, d in zip(low[1:], shift[1:], strict=True):
            key = key * 32 + np.clip(place + d, 0, 31)
        bins.append(key)
    bin_, count = np.unique(np.concatenate(bins), return_counts=True)
    owner = bin_ // (12 * 32**3)
    start = np.flatnonzero(np.diff(owner, prepend=-1))
    if not len(start):
        return owner, count
    return owner[start], np.maximum.reduceat(count, start)


def _best_partners(pair: _Ints, votes: _Ints, n_images: int) -> list[Candidate]:
    a, b = np.divmod(pair // 2, n_images)
    image = np.concatenate([a, b])
    index = np.tile(np.arange(len(pair)), 2)
    order = np.lexsort((index, -votes[index], image))
    rank = np.arange(len(order)) - np.searchsorted(image[order], image[order])
    kept = np.unique(index[order][rank < _PARTNERS])
    kept = kept[np.argsort(-votes[kept], kind="stable")]
    return [Candidate(int(a[i]), int(b[i]), bool(pair[i] % 2), int(votes[i])) for i in kept]
