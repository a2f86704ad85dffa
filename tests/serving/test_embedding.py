from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from osteofusion.errors import OsteofusionError
from osteofusion.serving.embedding import Embedding, fit_embedding

PICTURES = {".png", ".jpg", ".jpeg"}
ROOT = Path(__file__).resolve().parents[2]


def cloud(rows, seed, dim=48, shift=0.0):
    """Correlated positive features, more or less those of a pooled ReLU map."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(6, dim))
    centre = rng.gamma(2.0, size=dim) + shift * np.random.default_rng(9).gamma(2.0, size=dim)
    draw = np.random.default_rng(seed)
    noise = draw.normal(size=(rows, 6)) @ mixing * 0.1 + draw.normal(size=(rows, dim)) * 0.05
    return np.maximum(centre + noise, 0).astype(np.float32)


@pytest.fixture(scope="module")
def embedding():
    return fit_embedding(cloud(200, seed=1))


def test_few_of_the_same_kind_and_all_of_another_are_unlike(embedding):
    held_back = cloud(2000, seed=2)
    assert 0.0005 < embedding.unlike(held_back).mean() < 0.04
    assert embedding.unlike(cloud(200, seed=3, shift=0.5)).all()
    assert not embedding.unlike(held_back)[np.argmin(embedding.distance(held_back))]


def test_a_training_radiograph_of_typical_distance_lies_near_one(embedding):
    assert np.median(embedding.distance(cloud(2000, seed=2))) == pytest.approx(1, abs=0.25)


@given(st.floats(0.01, 100), st.integers(0, 1000))
def test_the_length_of_the_features_says_nothing(embedding, factor, seed):
    features = cloud(3, seed)
    scaled = embedding.distance(features * np.float32(factor))
    assert scaled == pytest.approx(embedding.distance(features), rel=1e-3)


@given(st.integers(1, 5), st.integers(0, 1000))
def test_a_row_is_judged_by_itself_alone(embedding, rows, seed):
    features = cloud(rows, seed)
    alone = [embedding.distance(row[None])[0] for row in features]
    assert embedding.distance(features) == pytest.approx(alone)


def test_a_map_counts_by_its_spatial_mean(embedding):
    features = cloud(4, seed=5)
    maps = np.stack([features * weight for weight in (0.5, 1.0, 1.5, 1.0)], axis=-1)
    maps = maps.reshape(4, -1, 2, 2)
    assert embedding.distance(maps) == pytest.approx(embedding.distance(features), rel=1e-4)


def test_features_that_are_no_numbers_are_unlike(embedding):
    broken = cloud(2, seed=6)
    broken[1, 3] = np.nan
    assert embedding.unlike(broken).tolist() == [False, True]
    assert embedding.unlike(np.zeros_like(broken)).all()


def test_what_is_written_is_read_back_and_holds_no_single_radiograph(embedding, tmp_path):
    for name in ("one.npz", "two.npz"):
        embedding.save(tmp_path / name)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    features = cloud(50, seed=7)
    read = Embedding.load(tmp_path / "one.npz")
    assert read.distance(features) == pytest.approx(embedding.distance(features), rel=1e-4)
    assert read.threshold == embedding.threshold
    with np.load(tmp_path / "one.npz", allow_pickle=False) as held:
        assert {name: held[name].shape for name in held} == {
            "mean": (48,), "scale": (48,), "directions": (47, 48), "variances": (47,),
            "rest": (), "threshold": (),
        }  # fmt: skip


def test_a_damaged_or_foreign_file_is_refused_in_one_sentence(embedding, tmp_path):
    embedding.save(tmp_path / "whole.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:300])
    np.savez(tmp_path / "foreign.npz", other=np.zeros(3))
    np.savez(tmp_path / "pickled.npz", mean=np.array([object()]))
    for name in ("cut", "foreign", "pickled", "absent"):
        with pytest.raises(OsteofusionError, match=rf"{name}\.npz cannot be read"):
            Embedding.load(tmp_path / f"{name}.npz")


@pytest.mark.parametrize(
    ("features", "reason"),
    [
        (np.repeat(cloud(19, seed=1), 3, axis=0), "there are 19 different"),
        (np.zeros((0, 8), dtype=np.float32), "there are 0 different"),
        (np.full((30, 8), np.inf, dtype=np.float32), "not finite"),
    ],
)
def test_too_little_to_learn_from_is_refused(features, reason):
    with pytest.raises(ValueError, match=reason):
        fit_embedding(features)


def test_copies_of_a_radiograph_do_not_lower_the_threshold():
    features = cloud(60, seed=1)
    doubled = fit_embedding(np.repeat(features, 3, axis=0))
    assert doubled.threshold > 0.8 * fit_embedding(features).threshold


def test_judging_needs_neither_torch_nor_scikit_learn(embedding, tmp_path):
    embedding.save(tmp_path / "e.npz")
    code = (
        "import sys, numpy as np; from osteofusion.serving.embedding import Embedding;"
        "Embedding.load(sys.argv[1]).unlike(np.ones((1, 48), np.float32));"
        "print([name for name in ('torch', 'sklearn', 'timm') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "e.npz")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.slow
def test_hands_and_drawn_spines_are_unlike_mendeley_knees(mendeley, rsna, spine, tmp_path):
    """Frozen ImageNet features: 810 hands, of which ten are full-size, and knees held back."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    table = pd.read_csv(ROOT / "manifests" / "mendeley_folds.csv")
    names = sorted(table["image"].unique())
    knees = dict(zip(names, _frozen([mendeley / name for name in names]), strict=True))
    hands = sorted((rsna / "boneage-training-dataset").glob("*.png"))
    spines = sorted(path for path in spine.rglob("*.*") if path.suffix.lower() in PICTURES)
    others = _frozen(hands), _frozen(spines)
    full_size = [7034 <= int(path.stem) <= 7047 for path in hands]
    flagged = []
    for _, fold in table.groupby(["repeat", "fold"]):
        sides = {
            side: np.stack([knees[name] for name in rows["image"]])
            for side, rows in fold.groupby("split")
        }
        fitted = fit_embedding(sides["train"])
        flagged.append(fitted.unlike(np.concatenate([sides["val"], sides["test"]])).mean())
        assert fitted.unlike(others[0]).mean() >= 0.95
        assert fitted.unlike(others[0][full_size]).all()
        assert fitted.unlike(others[1]).mean() >= 0.95
    assert np.mean(flagged) <= 0.03
    assert np.quantile(flagged, 0.9) <= 0.05


def _frozen(paths):
    from osteofusion.data.radiograph import RadiographPreprocessing, content_hash
    from osteofusion.training.features import frozen_features

    files = [(path, content_hash(path)) for path in paths]
    return frozen_features(files, "tf_efficientnet_lite0", True, RadiographPreprocessing(224))
