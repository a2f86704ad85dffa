"""What bad input to a seed's config gets on the command line: one sentence, before any training."""

from __future__ import annotations

import re

import pandas as pd
import pytest
import yaml

OSTEOAI = ("--model.arm", "tabular", "--trainer.callbacks", "null")


def refused(result) -> str:
    """The sentence of a command that was refused."""
    assert result.code == 2
    assert "Traceback" not in result.err
    sentence = result.err.strip().splitlines()[-1]
    assert sentence.startswith("osteofusion: error: ")
    return sentence


@pytest.fixture
def fit_hands(cli, hands, tmp_path):
    """`fit` of the OSTEO AI seed with another label file."""

    def fit(table):
        path = tmp_path / "mine.csv"
        table.to_csv(path, index=False)
        options = (*cli.toy, "--data.root", hands, "--data.labels", path, *OSTEOAI)
        return cli("fit", "--config", "seeds/osteoai.yaml", *options, cwd=tmp_path)

    return fit


@pytest.fixture
def labels(hands):
    return pd.read_csv(hands / "labels.csv", dtype=str)


def test_ids_that_the_label_file_misses_are_counted_and_left_out(fit_hands, labels):
    result = fit_hands(labels.iloc[7:])
    assert result.code == 0, result.err
    said = " ".join(result.out.split())
    assert "7 subjects have no label, such as 1377: they are left out." in said
    assert "53 radiographs of 53 subjects" in said
    assert "imbalance 1." in said


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"id": "99999"}, "names 1 subjects that .* does not have, such as '99999'"),
        ({"label": "brittle"}, "Unknown label 'brittle' in .*row 2; use normal, osteopenia"),
        ({"label": None}, "row 2: the ID or the label is empty"),
        # of another subject, which then has two
        ({"id": "1378", "label": "osteoporosis"}, "row 3: subject 1378 has two labels; keep one"),
    ],
)
def test_a_wrong_row_of_the_label_file_is_refused(fit_hands, labels, tmp_path, changed, said):
    labels.loc[0, list(changed)] = list(changed.values())
    found = refused(fit_hands(labels))
    assert re.search(said, found), found
    assert not list(tmp_path.glob("runs/*/*"))  # nothing was begun


def sized(clinic, **sizes):
    """A clinic with so many subjects of each class."""
    template = clinic.rows[0]
    scores = {"normal": 0.0, "osteopenia": -2.0, "osteoporosis": -3.0}
    clinic.rows = [
        {**template, "Patient ID": f"{label}{i}", "Diagnosis": label, "T-score": scores[label]}
        for label, size in sizes.items()
        for i in range(size)
    ]
    clinic.images = {
        f"{row['Diagnosis']}/{row['Patient ID']}.png": clinic.radiograph(str(row["Patient ID"]))
        for row in clinic.rows
    }
    return clinic


@pytest.fixture
def study(cli, clinic, tmp_path):
    """`study` of the clinic in five folds, tabular unless changed."""

    def run(**changed):
        content = {
            "config": "three_class.yaml",
            "arms": ["tabular"],
            "folds": 5,
            "executor": {"workers": 1},  # each starts a Python of its own
            "settings": {"data.image_size": 64, "model.pretrained": False},
        }
        (tmp_path / "toy.yaml").write_text(yaml.safe_dump(content | changed))
        options = ("--data.manifest", clinic.write(), "--data.root", clinic.root, "--out", "out")
        result = cli("study", "--config", "toy.yaml", *options, cwd=tmp_path)
        assert not (tmp_path / "out").exists()  # no cell was begun
        return refused(result)

    return run


def test_a_class_of_three_subjects_cannot_be_in_five_folds(study, clinic):
    sized(clinic, normal=3, osteopenia=9, osteoporosis=9)
    said = study()
    assert "class 'normal' has 3 subject groups but 5 folds" in said
    assert "use fewer folds (3 at most)" in said


def test_one_class_is_nothing_to_learn(cli, clinic, tmp_path):
    sized(clinic, osteopenia=12)
    for empty in ("normal", "osteoporosis"):
        (clinic.root / empty).mkdir()
    data = ("--data.manifest", clinic.write(), "--data.root", clinic.root)
    options = ("--config", "three_class.yaml", *data, "--model.arm", "tabular")
    assert "No training row is normal" in refused(cli("fit", *options, cwd=tmp_path))
    assert not list(tmp_path.glob("runs/*/*"))  # nothing was begun


def test_a_variant_whose_backbone_needs_larger_images_is_found_before_the_first_cell(study, clinic):
    sized(clinic, normal=7, osteopenia=7, osteoporosis=7)
    small, large = ({"model.backbone": name} for name in ("test_resnet.r160_in1k", "inception_v3"))
    said = study(arms=["image"], variants={"small": small, "inception": large})
    assert "variant inception, arm image: The backbone inception_v3 cannot read" in said
    assert "images of 64 px" in said
    assert "at least 75" in said
