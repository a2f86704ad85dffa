"""A label file may say of itself that its labels are invented; so does all that comes of it."""

from __future__ import annotations

import pandas as pd
import pytest

from osteofusion.data.cohort import build_cohort
from osteofusion.errors import CohortError


def label_file(hands, tmp_path, **columns):
    table = pd.read_csv(hands / "labels.csv", dtype=str).drop(columns="synthetic")
    path = tmp_path / "mine.csv"
    table.assign(**columns).to_csv(path, index=False)
    return path


def test_invented_labels_are_called_so(hands):
    cohort = build_cohort("rsna_boneage", hands)
    assert not cohort.manifest.synthetic
    assert cohort.manifest.synthetic_what.startswith("SYNTHETIC LABELS")
    for text in (cohort.manifest.title, cohort.manifest.citation, cohort.report.synthetic_what):
        assert "SYNTHETIC" in text


@pytest.mark.parametrize("columns", [{}, {"synthetic": "no"}])
def test_other_labels_are_not(hands, tmp_path, columns):
    cohort = build_cohort("rsna_boneage", hands, labels=label_file(hands, tmp_path, **columns))
    assert cohort.manifest.synthetic_what == ""
    assert cohort.report.synthetic_what == ""
    assert "SYNTHETIC" not in cohort.manifest.title + cohort.manifest.citation


def test_a_word_that_is_neither_yes_nor_no_is_refused(hands, tmp_path):
    with pytest.raises(CohortError, match="row 2: synthetic is 'perhaps'; write yes or no"):
        build_cohort("rsna_boneage", hands, labels=label_file(hands, tmp_path, synthetic="perhaps"))


def test_ids_without_a_label_are_left_out_and_counted(hands, tmp_path):
    path = label_file(hands, tmp_path)
    pd.read_csv(path).iloc[7:].to_csv(path, index=False)
    cohort = build_cohort("rsna_boneage", hands, labels=path)
    assert len(cohort.table) == 53
    assert len(cohort.report.rows_without_label) == 7


def test_unknown_ids_are_refused(hands, tmp_path):
    path = label_file(hands, tmp_path)
    path.write_text(path.read_text() + "99999,normal\n")
    with pytest.raises(CohortError, match=r"names 1 subjects that .* such as '99999'"):
        build_cohort("rsna_boneage", hands, labels=path)


def test_a_run_says_it_before_and_after(cli, hands, tmp_path):
    options = (*cli.toy, "--data.root", hands, "--model.arm", "tabular")
    result = cli("fit", "--config", "seeds/osteoai.yaml", *options,
                 "--trainer.callbacks", "null", cwd=tmp_path)  # fmt: skip
    assert result.code == 0, result.err
    assert result.out.count("SYNTHETIC LABELS") >= 3
    assert "DEMO" not in result.out
    for file in ("metrics.json", "environment.json", "join_report.json"):
        text = (tmp_path / "runs/osteoai/version_0" / file).read_text()
        assert "SYNTHETIC" in text
