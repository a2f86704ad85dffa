"""Runs and a study of the demo cohort, made once."""

from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from osteofusion.evaluation import evaluate
from osteofusion.evaluation.calibration import calibrate_folds

CLASSES = ["normal", "low_bmd"]
DESCRIPTION = {
    "name": "toy",
    "task": "binary",
    "classes": CLASSES,
    "manifest": "demo",
    "citation": "Nobody, nowhere.",
    "synthetic": True,
    "arms": ["fused", "tabular", "image"],
    "variants": {"base": {}},
    "seeds": [42],
    "repeats": 1,
    "folds": 2,
    "calibrated": True,
    "cells": {"done": 1, "planned": 2},
    "failed": {"base-fused-r0-f1-s42": "It failed."},
    "configurations_tried": 3,
    "looks_per_fold": [{"repeat": 0, "fold": fold, "looks": 2} for fold in (0, 1)],
}
HALF = {"value": 0.6, "n": 60, "low": 0.4, "high": 0.8, "method": "delong", "reason": None}
AUDITS = {
    "leakage": {
        "title": "What a split by row would have bought",
        "reason": None,
        "verdict": ["Next to nothing."],
        "notes": ["Simple models."],
        "rows": [
            {"model": "nearest_film", "metric": "accuracy", "on": "copied films", "by_row": 0.86,
             "by_group": 0.73, "difference": HALF, "p": 0.01, "p_adjusted": 0.02}
        ],
    },
    "pairing": {
        "title": "Do radiographs and rows belong together?",
        "reason": None,
        "verdict": ["Perhaps not."],
        "suspect": ["normal"],
        "notes": [],
        "films": [
            {"sexes_differ": True, "years_apart": 40.0, "rows": [
                {"subject_id": "N15", "image": "a", "label": "normal", "sex": "male", "age": 34.0},
                {"subject_id": "OP73", "image": "b", "label": "osteopenia", "sex": None,
                 "age": None},
            ]}
        ],
        "rows": [
            {"target": "sex", "metric": "auroc", "class": "normal", "reason": None,
             "estimate": HALF, "difference": HALF, "p": 0.01, "p_adjusted": 0.0001,
             "stands_out": True}
        ],
    },
    "shortcut": {
        "title": "Label told from the files alone",
        "reason": "the cohort has no radiographs",
        "verdict": [],
        "notes": [],
        "rows": [],
    },
    "learning_curve": {
        "title": "Would more radiographs help?",
        "reason": None,
        "verdict": [],
        "notes": [],
        "metric": "auroc",
        "rows": [
            {"model": "tabular", "share": share, "training_rows": 50 * share, "auroc": HALF}
            for share in (0.5, 1.0)
        ],
    },
}  # fmt: skip


class Page(HTMLParser):
    """Elements and text of a page."""

    def __init__(self, source):
        super().__init__()
        self.source, self.elements, self.texts, self._hidden = source, [], [], False
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._hidden = tag in ("script", "style")

    def handle_endtag(self, tag):
        self._hidden = False

    def handle_data(self, data):
        if not self._hidden:
            self.texts.append(data)

    def all(self, name):
        return [attributes for tag, attributes in self.elements if tag == name]

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(scope="session")
def study(trained, tmp_path_factory):
    """Folder of a study of two folds: one real cell, and predictions that are drawn."""
    out = tmp_path_factory.mktemp("studied") / "out"
    shutil.copytree(trained, out / "cells" / "base-fused-r0-f0-s42")
    for name in ("cohort.csv", "join_report.json", "splits.csv"):
        shutil.copyfile(trained / name, out / name)
    cohort = pd.read_csv(out / "cohort.csv", dtype={"subject_id": str})
    rng, low = np.random.default_rng(0), (cohort["label"] != "normal").to_numpy()
    tables = []
    for arm, apart in {
        "fused": 3,
        "tabular": 2.5,
        "image": 0.5,
        "age": 2,
        "fused_without_image": 2.5,
    }.items():
        p = 1 / (1 + np.exp(-(apart * (low - 0.5) + rng.normal(size=len(low)))))
        drawn = cohort[["subject_id", "image", "group", "site", "region"]].assign(
            variant="base", split="test", fold=cohort["group"] % 2, repeat=0, arm=arm, seed=42,
            label=np.where(low, CLASSES[1], CLASSES[0]), raw_normal=1 - p, raw_low_bmd=p,
        )  # fmt: skip
        tables.append(drawn)
    predictions = calibrate_folds(pd.concat(tables, ignore_index=True), CLASSES)
    predictions.to_csv(out / "predictions.csv", index=False)
    found = evaluate(predictions.drop(columns="variant"), CLASSES, resamples=200).to_dict()
    (out / "evaluation.json").write_text(json.dumps({"base": found}))
    (out / "study.json").write_text(json.dumps(DESCRIPTION))
    (out / "cells.csv").write_text(
        "cell,variant,arm,fold,repeat,seed,status,seconds,folder,error\n"
        "base-fused-r0-f0-s42,base,fused,0,0,42,done,1,cells/base-fused-r0-f0-s42,\n"
        "base-fused-r0-f1-s42,base,fused,1,0,42,failed,1,cells/base-fused-r0-f1-s42,It failed.\n"
    )
    (out / "looks.csv").write_text("time,cell,repeat,fold\n" + "now,base-fused-r0-f0-s42,0,0\n" * 4)
    (out / "audits.json").write_text(json.dumps(AUDITS))
    return out


@pytest.fixture(scope="session")
def run_page(cli, trained, tmp_path_factory):
    """The page of a run."""
    return _page(cli, trained, tmp_path_factory.mktemp("run_page"))


@pytest.fixture(scope="session")
def study_page(cli, study, tmp_path_factory):
    """The page of a study."""
    return _page(cli, study, tmp_path_factory.mktemp("study_page"))


@pytest.fixture(scope="session")
def make_page(cli):
    """`osteofusion report FOLDER` with options, into a folder; the page."""

    def write(folder, out, *options):
        return _page(cli, folder, out, *options)

    return write


@pytest.fixture
def report(cli, tmp_path):
    """`osteofusion report` into a folder of the test; the page."""

    def write(folder, *options):
        return _page(cli, folder, tmp_path, *options)

    return write


def _page(cli, folder, out, *options):
    result = cli("report", folder, "--out", out / "page.html", *options, cwd=out)
    assert result.code == 0, result.err
    page = Page((out / "page.html").read_text(encoding="utf-8"))
    page.folder = out
    return page
