"""Which side each component of a cohort goes to: every class everywhere, shares kept."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp

from osteofusion.errors import SplitError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def allocate(counts: Ints, shares: Floats, rng: np.random.Generator, parts: int = 1) -> Ints:
    """Side of each component, for fractions and folds alike.

    scikit-learn's StratifiedGroupKFold takes no fractions and may leave a side without a class.

    Args:
        counts: (G, C) rows of each component by class.
        shares: (S,) that sum to 1.
        rng: the only source of chance.
        parts: each side can be divided so often again with every class in every part.

    Returns:
        (G,) side of each component, 0..S-1.

    Raises:
        SplitError: no division gives every side every class.
    """
    n_sides, sizes = len(shares), counts.sum(axis=1)
    side = _cover(counts, n_sides * parts, rng) // parts
    order = rng.permutation(len(counts))
    order = order[np.argsort(-sizes[order], kind="stable")]

    # Components alike in their counts are dealt out by share; fewer than S of a kind are left.
    _, kind = np.unique(counts, axis=0, return_inverse=True)
    kind = kind.reshape(-1)  # numpy 2.0 alone returns a column
    several = order[(side[order] < 0) & (sizes[order] > 1)]
    several = several[np.argsort(kind[several], kind="stable")]
    for alike in np.split(several, np.flatnonzero(np.diff(kind[several])) + 1):
        whole = np.floor(shares * len(alike)).astype(np.int64)
        side[alike[: whole.sum()]] = np.repeat(np.arange(n_sides), whole)

    # The rest, largest first, each to the side that lacks most of what it holds.
    total = counts.sum(axis=0)
    need = np.outer(shares, total)
    np.subtract.at(need, side[side >= 0], counts[side >= 0])
    for group in order[(side[order] < 0) & (sizes[order] > 1)]:
        side[group] = np.argmax(need @ (counts[group] / total))
        need[side[group]] -= counts[group]

    # Single rows fill what is lacking.
    for label in range(counts.shape[1]):
        single = order[(side[order] < 0) & (counts[order, label] == 1)]
        side[single] = np.repeat(np.arange(n_sides), _fill(need[:, label], len(single)))
    return side


def _cover(counts: Ints, parts: int, rng: np.random.Generator) -> Ints:
    """(G,) part of the few small components that give every part every class; -1 for the others.

    How many components of each set of classes go to each part is an integer program, tiny because
    there are few such sets; so what can be done is done, which a greedy order cannot promise.
    """
    sizes = counts.sum(axis=1)
    sets, which = np.unique(counts > 0, axis=0, return_inverse=True)
    which = which.reshape(-1)  # numpy 2.0 alone returns a column
    available = np.bincount(which)
    smallest = np.full(len(sets), sizes.max())
    np.minimum.at(smallest, which, sizes)
    every_class = LinearConstraint(np.kron(sets.T, np.eye(parts)), lb=1)
    no_more = LinearConstraint(np.kron(np.eye(len(sets)), np.ones((1, parts))), ub=available)
    solution = milp(
        np.repeat(smallest, parts),
        integrality=np.ones(len(sets) * parts, dtype=np.int64),
        bounds=Bounds(0, np.repeat(available, parts)),
        constraints=[every_class, no_more],
    )
    if solution.x is None:
        raise SplitError(
            f"no division into {parts} parts gives each part every class, because subjects or "
            "identical images tie the classes together; use fewer folds or more data"
        )
    number = np.rint(solution.x).astype(np.int64).reshape(len(sets), parts)
    number = number[:, rng.permutation(parts)]
    part = np.full(len(counts), -1)
    order = np.lexsort((rng.random(len(counts)), sizes))
    for index, wanted in enumerate(number):
        members = order[which[order] == index][: wanted.sum()]
        part[members] = np.repeat(np.arange(parts), wanted)
    return part


def _fill(need: Floats, total: int) -> Ints:
    """Whole numbers >= 0 that sum to ``total``, next to ``need`` (projection on the simplex)."""
    falling = np.sort(need)[::-1]
    level = (np.cumsum(falling) - total) / np.arange(1, len(need) + 1)
    share = np.maximum(need - level[falling >= level][-1], 0)
    whole: Ints = np.floor(share).astype(np.int64)
    largest_remainder = np.argsort(whole - share, kind="stable")
    whole[largest_remainder[: total - whole.sum()]] += 1
    return whole
