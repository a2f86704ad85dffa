"""Do the sides of a split, or two sources, come from one population?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import chi2_contingency, fisher_exact, ks_2samp

from osteofusion.audit.predictability import Reading, Target, holm
from osteofusion.evaluation.metrics import Ints

_POOLED = 5  # rarer words of a column are pooled, so that chi-squared holds
_FEWEST = 5  # values a side needs


@dataclass(frozen=True)
class DriftTest:
    """One column on two sides.

    Attributes:
        sides: Such as ``train against test``.
        column: Column, ``label``, or ``<column> missing``.
        test: ``Kolmogorov-Smirnov``, ``chi-squared`` or ``Fisher``.
        p: P-value.
        adjusted: P-value adjusted for all tests (Holm).
        shown: Medians or shares of both sides, in words.
    """

    sides: str
    column: str
    test: str
    p: float
    adjusted: float
    shown: str


@dataclass(frozen=True)
class Comparison:
    """Two sides.

    Attributes:
        name: Such as ``train against test``.
        first: (N,) rows of the one side.
        second: (N,) rows of the other.
    """

    name: str
    first: npt.NDArray[np.bool_]
    second: npt.NDArray[np.bool_]


def compare_sides(sides: Sequence[str | None]) -> list[Comparison]:
    """Training side against each other one; without a training side each against the rest."""
    words = pd.Series(list(sides), dtype=object)
    names = [str(name) for name in words.dropna().value_counts().index]
    one = "train" if "train" in names else names[0] if len(names) == 2 else None
    if len(names) < 2:
        return []
    if one is not None:
        others = [name for name in names if name != one]
        return [
            Comparison(f"{one} against {name}", _is(words, one), _is(words, name))
            for name in others
        ]
    known = words.notna().to_numpy()
    return [
        Comparison(f"{name} against the others", _is(words, name), known & ~_is(words, name))
        for name in names
    ]


def find_drift(
    comparisons: Sequence[Comparison], columns: pd.DataFrame, groups: Ints
) -> list[DriftTest]:
    """Test each column on each pair of sides: two-sample tests, Holm-adjusted over all.

    Numbers are compared by Kolmogorov and Smirnov's test, words by chi-squared (rare ones
    pooled), or Fisher's exact test where there are two; gaps by Fisher's. Of the rows of one group
    only the first on each side counts, since rows of a subject are no independent draws.

    Args:
        comparisons: The pairs of sides.
        columns: (N, ...) floats, or words as objects.
        groups: (N,) group codes.
    """
    found: list[DriftTest] = []
    for comparison in comparisons:
        first, second = (
            columns[side][~pd.Series(groups[side]).duplicated().to_numpy()]
            for side in (comparison.first, comparison.second)
        )
        for name in columns:
            found += _test(comparison.name, str(name), first[name], second[name])
    adjusted = holm([test.p for test in found])
    tests = [replace(test, adjusted=p or 0.0) for test, p in zip(found, adjusted, strict=True)]
    return sorted(tests, key=lambda test: test.p)


def tell_apart(
    comparisons: Sequence[Comparison], columns: dict[str, pd.DataFrame], groups: Ints
) -> list[Reading]:
    """Classifier two-sample tests: AUROC of telling one side from the other, by set of columns.

    A component that lies on both sides stays in one fold.
    """
    readings = []
    for comparison in comparisons:
        words = np.full(len(groups), None, dtype=object)
        words[comparison.first], words[comparison.second] = "first", "second"
        target = Target(words.tolist(), groups)
        readings += [
            target.read(f"{comparison.name}, from {what}", frame) for what, frame in columns.items()
        ]
    return readings


def _is(words: pd.Series, name: str) -> npt.NDArray[np.bool_]:
    return (words == name).to_numpy(dtype=bool)


def _test(sides: str, name: str, first: pd.Series, second: pd.Series) -> list[DriftTest]:
    gaps = [int(first.isna().sum()), int(second.isna().sum())]
    sizes = [len(first), len(second)]
    found = []
    if min(sizes) >= _FEWEST and 0 < sum(gaps) < sum(sizes):
        table = np.array([gaps, [n - gap for n, gap in zip(sizes, gaps, strict=True)]])
        shares = " against ".join(f"{gap / n:.0%}" for gap, n in zip(gaps, sizes, strict=True))
        p = float(fisher_exact(table).pvalue)
        found.append(DriftTest(sides, f"{name} missing", "Fisher", p, p, shares))
    first, second = first.dropna(), second.dropna()
    if min(len(first), len(second)) < _FEWEST or pd.concat([first, second]).nunique() < 2:
        return found
    if pd.api.types.is_numeric_dtype(first) and pd.concat([first, second]).nunique() > 2:
        p = float(ks_2samp(first.astype(float), second.astype(float)).pvalue)
        shown = f"median {first.median():.4g} against {second.median():.4g}"
        found.append(DriftTest(sides, name, "Kolmogorov-Smirnov", p, p, shown))
        return found
    words, counts = _counts(first, second)
    if len(words) < 2:
        return found
    small = len(words) == 2
    p = float(fisher_exact(counts).pvalue if small else chi2_contingency(counts).pvalue)
    shares = counts / counts.sum(axis=0)
    at = int(np.abs(shares[:, 0] - shares[:, 1]).argmax())
    shown = f"{words[at]}: {shares[at, 0]:.0%} against {shares[at, 1]:.0%}"
    found.append(DriftTest(sides, name, "Fisher" if small else "chi-squared", p, p, shown))
    return found


def _counts(first: pd.Series, second: pd.Series) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Words, and how often each stands on either side; rare ones pooled."""
    sides = [side.value_counts() for side in (first, second)]
    words = sorted({word for side in sides for word in side.index}, key=str)
    counts = np.array([[side.get(word, 0) for side in sides] for word in words], dtype=np.int64)
    rare = counts.sum(axis=1) < 2 * _POOLED
    if rare.sum() > 1 and len(words) > 2:
        kept = [str(word) for word, pooled in zip(words, rare, strict=True) if not pooled]
        return [*kept, "others"], np.vstack([counts[~rare], counts[rare].sum(axis=0)])
    return [str(word) for word in words], counts
