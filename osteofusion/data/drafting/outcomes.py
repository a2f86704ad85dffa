"""Where the bone status stands: a column of words or codes, a T-score, class folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from osteofusion.data.drafting.answers import NO, YES, statuses, yes_no
from osteofusion.data.drafting.concepts import find_concept
from osteofusion.data.drafting.profile import ColumnDraft, Profile
from osteofusion.data.drafting.words import fold, shown
from osteofusion.data.labels import who_label
from osteofusion.data.manifest import LABELS, Column, Label

_AGREE = 0.95
_CODES: dict[frozenset[str], tuple[Label, ...]] = {
    frozenset("012"): LABELS,
    frozenset("123"): LABELS,
    frozenset("01"): ("normal", "osteoporosis"),
    frozenset("12"): ("normal", "osteoporosis"),
}


@dataclass
class LabelDraft:
    """The `label` section of a manifest.

    Attributes:
        content: Its keys and values.
        comments: The evidence.
        proposals: Lines that only the user can decide on.
        header: Header of the label column, if there is one.
        decided: False where the user must edit before there are labels.
    """

    content: dict[str, Any] = field(default_factory=dict)
    comments: list[str] = field(default_factory=list)
    proposals: list[str] = field(default_factory=list)
    header: str | None = None
    decided: bool = True


def draft_label(
    profiles: Sequence[Profile], columns: Sequence[ColumnDraft], id_header: str, *, folders: bool
) -> LabelDraft:
    """Find the label; codes are translated only where T-scores prove their meaning.

    Args:
        profiles: All columns but the ID.
        columns: Their drafts, named.
        id_header: Header of the ID column.
        folders: Whether class folders tell the label too.
    """
    draft = LabelDraft()
    scores = _t_scores(columns)
    worded = [profile for profile in profiles if _is_worded(profile)]
    coded = [profile for profile in profiles if profile not in worded and _is_coded(profile)]
    if worded:
        _from_words(draft, _best(worded))
    by_scores = {score.name: _scores_labels(score) for score in scores}
    if not worded and scores:
        for profile in coded:
            if _from_proof(draft, profile, by_scores):
                break
    if scores:
        _from_scores(draft, scores, by_scores, profiles)
    if not draft.content and not folders and coded:
        _propose(draft, coded[0])
    return draft if draft.content or folders else without_source(id_header)


def without_source(id_header: str) -> LabelDraft:
    """The label of data that do not tell it: from a file that the user must bring."""
    return LabelDraft(
        {"file": "labels.csv", "id": id_header, "column": "label"},
        [
            "Nothing in the data tells the bone status: bring a CSV with one row a subject and the "
            f"columns {shown([id_header])} and 'label' (normal, osteopenia or osteoporosis)."
        ],
        decided=False,
    )


def _is_worded(profile: Profile) -> bool:
    named = statuses(profile.counts)
    return (
        len(profile.counts) <= 20
        and len(set(named.values())) > 1
        and set(named.values()) != {"normal"}
        and profile.share(named) >= 0.8
    )


def _is_coded(profile: Profile) -> bool:
    concept = find_concept(profile.header)
    if concept is None or concept.name != "diagnosis":
        return False
    return frozenset(profile.counts) in _CODES or bool(yes_no(profile.counts))


def _best(profiles: list[Profile]) -> Profile:
    def likely(profile: Profile) -> tuple[bool, float]:
        concept = find_concept(profile.header)
        return concept is not None and concept.name == "diagnosis", profile.share(
            statuses(profile.counts)
        )

    return max(profiles, key=likely)


def _from_words(draft: LabelDraft, profile: Profile) -> None:
    named = statuses(profile.counts)
    draft.header = profile.header
    draft.content["column"] = profile.header
    spelled = {word: label for word, label in named.items() if word not in LABELS}
    if spelled:
        draft.content["values"] = spelled
    counts = {label: sum(profile.counts[w] for w in named if named[w] == label) for label in LABELS}
    draft.comments.append(", ".join(f"{count} {label}" for label, count in counts.items()))
    unknown = [word for word in profile.counts if word not in named]
    if unknown:
        draft.decided = False
        draft.proposals.append(
            f"{shown(unknown)} in this column: give each its class under values, or empty the cells"
        )


def _scores_labels(score: ColumnDraft) -> pd.Series:
    entry = {key: value for key, value in score.entry.items() if key != "header"}
    values, _ = score.profile.parse(Column(**entry))
    return values.dropna().map(who_label)


def _t_scores(columns: Sequence[ColumnDraft]) -> list[ColumnDraft]:
    return [
        column
        for column in columns
        if column.role == "outcome"
        and column.entry["kind"] == "numeric"
        and (concept := find_concept(column.profile.header)) is not None
        and concept.name == "t_score"
        and "range" in column.entry
    ]


def _from_proof(draft: LabelDraft, profile: Profile, by_scores: dict[str, pd.Series]) -> bool:
    """Take codes whose meaning the T-scores show."""
    for name, labels in by_scores.items():
        both = pd.DataFrame({"code": profile.words, "label": labels}).dropna()
        counts = pd.crosstab(both["code"], both["label"])
        if len(both) < 20 or len(counts) < 2 or counts.max(axis=1).sum() < _AGREE * len(both):
            continue
        meaning = counts.idxmax(axis=1)
        if meaning.duplicated().any() or set(meaning.index) != set(profile.counts):
            continue
        draft.header = profile.header
        draft.content |= {"column": profile.header, "values": meaning.to_dict()}
        draft.comments.append(f"{name} by the WHO thresholds shows what the codes mean")
        return True
    return False


def _from_scores(
    draft: LabelDraft,
    scores: list[ColumnDraft],
    by_scores: dict[str, pd.Series],
    profiles: Sequence[Profile],
) -> None:
    chosen = scores[0].name
    if draft.header is not None:
        profile = next(each for each in profiles if each.header == draft.header)
        values = {**{label: label for label in LABELS}, **draft.content.get("values", {})}
        labels = profile.words.map(values)
        agreement = {}
        for name, by_score in by_scores.items():
            both = pd.DataFrame({"label": labels, "score": by_score}).dropna()
            agreement[name] = float((both["label"] == both["score"]).mean()) if len(both) else 0.0
        chosen = max(agreement, key=lambda name: agreement[name])
        if agreement[chosen] < 0.5:
            draft.comments.append(
                f"{chosen} by the WHO thresholds agrees with only {agreement[chosen]:.0%} of the "
                "labels, so it is not used for them"
            )
            return
        draft.comments.append(
            f"{chosen} by the WHO thresholds agrees with {agreement[chosen]:.0%} of the labels"
        )
    elif len(scores) > 1:
        draft.comments.append(
            f"of the T-scores {', '.join(by_scores)} the first was taken; the WHO takes the "
            "lowest of spine and hip"
        )
    draft.content["t_score"] = chosen


def _propose(draft: LabelDraft, profile: Profile) -> None:
    draft.header = profile.header
    draft.decided = False
    draft.content["column"] = profile.header
    if frozenset(profile.counts) in _CODES:
        codes = sorted(profile.counts)
        meaning = dict(zip(codes, _CODES[frozenset(codes)], strict=True))
    else:
        meaning = {
            word: "osteoporosis" if fold(word) in YES else "normal"
            for word in profile.counts
            if fold(word) in YES | NO
        }
    pairs = ", ".join(f'"{word}": {label}' for word, label in meaning.items())
    draft.proposals += [
        "EDIT: nothing shows what these codes mean; if it is this, delete the # of the next line",
        f"values: {{ {pairs} }}",
    ]
