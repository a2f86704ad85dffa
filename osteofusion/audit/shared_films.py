"""What copies and subjects tie together that should be apart: splits, labels, subjects, sources."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

import pandas as pd

from osteofusion.audit.copies import CopyPair
from osteofusion.audit.findings import Copy, Finding
from osteofusion.audit.sources import Collection

_KINDS = ("re-encoded", "resized", "mirrored", "cropped", "altered")
_WORST_FIRST = ("splits", "labels", "subjects", "sources")


def describe_copies(
    collection: Collection, pairs: Sequence[CopyPair], sha256: Sequence[str]
) -> list[Copy]:
    """The pairs with names, labels and sides; those across splits or labels first."""
    rows = collection.table.to_dict("records")
    sides = [tuple(values) for values in collection.divisions.itertuples(index=False, name=None)]
    copies = []
    for pair in pairs:
        a, b = rows[pair.a], rows[pair.b]
        division = _division_between(sides[pair.a], sides[pair.b]) if sides else None
        split = (None, None)
        if sides and sides[pair.a]:
            at = division or 0
            split = (sides[pair.a][at], sides[pair.b][at])
        across = [
            name
            for name, apart in (
                ("splits", division is not None),
                ("labels", _differ(a["label"], b["label"])),
                ("subjects", _differ(a["subject"], b["subject"])),
                ("sources", _differ(a["source"], b["source"])),
            )
            if apart
        ]
        copies.append(
            Copy(
                a=pair.a,
                b=pair.b,
                image_a=a["name"],
                image_b=b["name"],
                sha256_a=sha256[pair.a],
                sha256_b=sha256[pair.b],
                kind=pair.kind,
                mirrored=pair.mirrored,
                correlation=float(pair.correlation),
                overlap=float(pair.overlap),
                rotation=float(pair.rotation),
                across=tuple(across),
                subject_a=a["subject"],
                subject_b=b["subject"],
                label_a=a["label"],
                label_b=b["label"],
                split_a=split[0],
                split_b=split[1],
                source_a=a["source"],
                source_b=b["source"],
                transform=tuple(tuple(float(x) for x in row) for row in pair.transform),
            )
        )
    return sorted(copies, key=_badness)


def copy_findings(
    collection: Collection, films: Sequence[Sequence[int]], copies: Sequence[Copy]
) -> list[Finding]:
    """Identical groups, other copies by kind, and what the films of several files spoil.

    Args:
        collection: The images.
        films: Rows of the files that show one film, for each film of several files.
        copies: The pairs.
    """
    names = [_stem(name) for name in collection.table["name"]]
    identical = _identical_groups(copies)
    findings = [
        Finding(
            "identical_groups",
            len(identical),
            "byte-identical files",
            [" = ".join(names[i] for i in group) for group in identical],
        )
    ]
    for kind in _KINDS:
        pairs = [copy for copy in copies if copy.kind == kind]
        findings.append(
            Finding(
                f"{kind.replace('-', '_')}_copies",
                len(pairs),
                "pairs of files that show one film",
                [f"{names[c.a]} ~ {names[c.b]} ({c.correlation:.2f})" for c in pairs],
            )
        )
    several = {
        "labels": (collection.table["label"], "one film, different labels"),
        "subjects": (collection.table["subject"], "one film, filed under different subjects"),
        "sources": (collection.table["source"], "one film in several folders or sites"),
    }
    findings.append(_across_splits(collection, films, names))
    for what, (values, meaning) in several.items():
        if values.nunique() < 2:
            if what == "sources":  # the usual case
                continue
            findings.append(_unchecked(f"copies_across_{what}", f"fewer than two {what} are known"))
            continue
        known = values.tolist()
        groups = [group for group in films if len({known[i] for i in group} - {None}) > 1]
        examples = [" = ".join(_with(names[i], known[i]) for i in group) for group in groups]
        findings.append(Finding(f"copies_across_{what}", len(groups), meaning, examples))
    return findings


def subject_finding(collection: Collection) -> list[Finding]:
    """Subjects on several sides, and images that a split file puts on two sides."""
    subjects = collection.table["subject"]
    if subjects.notna().sum() == 0 or collection.divisions.empty:
        why = "no subjects are known" if collection.divisions.shape[1] else "no splits are known"
        findings = [_unchecked("subjects_across_splits", why)]
    else:
        several: dict[str, str] = {}
        for name in collection.divisions:
            sides = collection.divisions[name].groupby(subjects).unique()
            for subject, found in sides.items():
                known = sorted({side for side in found if not pd.isna(side)})
                if len(known) > 1:
                    several.setdefault(str(subject), f"{subject} in {' and '.join(known)}")
        examples = list(several.values())
        meaning = "radiographs of one subject on several sides"
        findings = [Finding("subjects_across_splits", len(several), meaning, examples)]
    if collection.on_both_sides:
        findings.append(
            Finding(
                "images_on_two_sides",
                len(collection.on_both_sides),
                "listed on two sides of one division",
                collection.on_both_sides,
            )
        )
    return findings


def _across_splits(
    collection: Collection, films: Sequence[Sequence[int]], names: Sequence[str]
) -> Finding:
    if not collection.divisions.shape[1]:
        return _unchecked("copies_across_splits", "no splits are known")
    examples = []
    for group in films:
        for name in collection.divisions:
            sides = collection.divisions[name].iloc[list(group)].tolist()
            if len(set(sides) - {None}) > 1:
                pairs = zip(group, sides, strict=True)
                examples.append(" = ".join(f"{names[i]} {side or 'no side'}" for i, side in pairs))
                break
    meaning = "one film on several sides: what is measured there is memory"
    return Finding("copies_across_splits", len(examples), meaning, examples)


def _identical_groups(copies: Sequence[Copy]) -> list[list[int]]:
    groups: dict[str, set[int]] = {}
    for copy in copies:
        if copy.kind == "identical":
            groups.setdefault(copy.sha256_a, set()).update((copy.a, copy.b))
    return sorted(sorted(group) for group in groups.values())


def _unchecked(name: str, why: str) -> Finding:
    return Finding(name, None, why)


def _division_between(one: Sequence[str | None], other: Sequence[str | None]) -> int | None:
    """The first division that has the two rows on different sides."""
    pairs = enumerate(zip(one, other, strict=True))
    return next((i for i, (a, b) in pairs if _differ(a, b)), None)


def _differ(one: object, other: object) -> bool:
    return one is not None and other is not None and one != other


def _badness(copy: Copy) -> tuple[list[bool], bool, float]:
    spoils = [name not in copy.across for name in _WORST_FIRST]
    return spoils, copy.kind == "identical", -copy.correlation


def _with(name: str, value: str | None) -> str:
    return name if value == name else f"{name} {value or 'unknown'}"


def _stem(name: str) -> str:
    path = PurePosixPath(name)
    return path.stem or name
