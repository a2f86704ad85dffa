"""Several data sets, one manifest: columns united by canonical name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from osteofusion.data.manifest import REGION, Column, LabelSource, Manifest
from osteofusion.errors import ManifestError


def unite(manifests: Sequence[Manifest]) -> Manifest:
    """One manifest for the cohort of several data sets: columns united by canonical name.

    A column that one data set ignores and another uses is used; of two plausible ranges the wider
    one counts, and none where one data set has none. Where the data sets are of several regions,
    ``region`` is a categorical feature: a spine is not a knee with other pixels.

    Raises:
        ManifestError: two data sets have one site name, or mean different things by a column.
    """
    if len(manifests) == 1:
        return manifests[0]
    sites = [manifest.site_name for manifest in manifests]
    for site in sites:
        if sites.count(site) > 1:
            raise ManifestError(
                f"Two data sets are of site {site!r}; give each manifest a `site` of its own."
            )
    columns: dict[str, Column] = {}
    owner: dict[str, str] = {}
    for manifest in manifests:
        for name, column in manifest.columns.items():
            if name in columns:
                column = _united(name, columns[name], column, owner[name], manifest.name)
            columns[name] = column
            owner.setdefault(name, manifest.name)
    regions = list(dict.fromkeys(manifest.region for manifest in manifests))
    scores = {manifest.label.t_score for manifest in manifests} - {None}
    file = next((each.label.file for each in manifests if each.label.file is not None), None)
    table = next((each.table for each in manifests if each.table is not None), None)
    header = "label" if table is not None or file is not None else None
    score = scores.pop() if len(scores) == 1 else None
    united = Manifest(
        name="+".join(manifest.name for manifest in manifests),
        title="; ".join(manifest.title for manifest in manifests),
        region="+".join(regions),
        license="; ".join(dict.fromkeys(manifest.license for manifest in manifests)),
        citation="; ".join(dict.fromkeys(manifest.citation for manifest in manifests)),
        synthetic=any(manifest.synthetic for manifest in manifests),
        synthetic_labels=any(manifest.synthetic_labels for manifest in manifests),
        images=next((each.images for each in manifests if each.images is not None), None),
        table=table,
        label=LabelSource(column=header, t_score=score, file=file),
        columns=columns,
    )
    if len(regions) == 1:
        return united
    # Not before: a manifest of one data set may not have a column of this name.
    return united.model_copy(update={"columns": {**columns, REGION: Column(kind="categorical")}})


def _united(name: str, first: Column, second: Column, here: str, there: str) -> Column:
    for key in ("kind", "unit", "role"):
        one, other = getattr(first, key), getattr(second, key)
        if one != other and not (key == "role" and "ignored" in (one, other)):
            raise ManifestError(
                f"Column {name!r} has {key} {one} in manifest {here} and {other} in {there}; make "
                "them agree (scale brings a file's unit to the canonical one) or rename one."
            )
    update: dict[str, Any] = {"role": second.role if first.role == "ignored" else first.role}
    if first.range is not None:
        one, other = first.range, second.range
        update["range"] = other and (min(one[0], other[0]), max(one[1], other[1]))
    return first.model_copy(update=update)
