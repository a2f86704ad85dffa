"""How the classes are balanced: over all, by site, by acquisition family."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from osteofusion.data.labels import TASKS
from osteofusion.data.page.classes import classes, percent, words


@dataclass(frozen=True)
class Mix:
    """How many of some rows are of each class, in the classes' order."""

    name: str
    total: int
    counts: dict[str, int]


@dataclass(frozen=True)
class Guess:
    """What a model scores on a task by always naming the most frequent class."""

    task: str
    answer: str
    share: str


def class_mixes(table: pd.DataFrame, people: pd.DataFrame) -> list[Mix]:
    """Classes of all radiographs, of the subjects where these are fewer, and of each site."""
    by_class = classes(table)
    mixes = [mix("all rows" if (table["image"] == "").any() else "all radiographs", by_class)]
    if len(people) < len(table):
        mixes.append(mix("all subjects", classes(people)))
    if table["site"].nunique() > 1:
        mixes += split_mix(by_class, table["site"])
    return mixes


def split_mix(by_class: pd.Series, kinds: pd.Series) -> list[Mix]:
    """Classes of the rows of each kind, in the kinds' order."""
    groups = by_class.groupby(kinds, observed=True)
    return [mix(str(kind), rows) for kind, rows in groups]


def mix(name: str, by_class: pd.Series) -> Mix:
    """How often each category occurs."""
    counts = by_class.value_counts(sort=False)
    return Mix(name, len(by_class), {str(label): int(count) for label, count in counts.items()})


def guesses(table: pd.DataFrame) -> list[Guess]:
    """For each task that the labels allow, the share that the most frequent class makes up."""
    labels = table["label"].dropna()
    found = []
    for task, names in TASKS.items():
        counts = labels.map(names).value_counts()
        if len(counts) > 1:
            answer = words(str(counts.index[0]))
            found.append(Guess(words(task), answer, percent(int(counts.iloc[0]), len(labels))))
    return found


def best_guess(mixes: list[Mix]) -> str:
    """Share of the rows that are of the most frequent class of their own kind."""
    right = sum(max(each.counts.values()) for each in mixes)
    return percent(right, sum(each.total for each in mixes))
