from __future__ import annotations

import copy
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from osteofusion.errors import ConfigError
from osteofusion.models import ClinicalEncoder, ClinicalPreprocessing, build_clinical_encoder


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), gaps=st.floats(0.05, 0.6))
def test_agrees_with_scikit_learn(seed, gaps):
    rng = np.random.default_rng(seed)
    train = np.column_stack([rng.normal(50, 20, (60, 2)), rng.integers(0, 4, 60)])
    train[rng.random(train.shape) < gaps] = np.nan
    train[:2] = [[np.nan] * 3, [1.0, 2.0, 0.0]]  # a gap and a value in every column
    reference = ColumnTransformer(
        [
            ("numeric", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), [0, 1]),
            ("indicators", MissingIndicator(features="all"), [0, 1, 2]),
            (
                "one_hot",
                make_pipeline(
                    SimpleImputer(strategy="most_frequent"),
                    OneHotEncoder(handle_unknown="ignore", sparse_output=False),
                ),
                [2],
            ),
        ]
    ).fit(train)
    impute, scaler = reference.named_transformers_["numeric"]
    impute_code, encoder = reference.named_transformers_["one_hot"]
    categories = encoder.categories_[0].tolist()
    module = ClinicalPreprocessing(
        {
            "features": ["a", "b", "c"],
            "fill": [*impute.statistics_.tolist(), float(impute_code.statistics_[0])],
            "numeric": {
                "columns": [0, 1],
                "mean": scaler.mean_.tolist(),
                "scale": scaler.scale_.tolist(),
            },
            "indicators": [0, 1, 2],
            "one_hot": {"columns": [2] * len(categories), "codes": [[c] for c in categories]},
            "names": list(map(str, range(5 + len(categories)))),
        }
    )
    new = np.column_stack([rng.normal(50, 20, (20, 2)), rng.integers(0, 6, 20)])
    new[rng.random(new.shape) < gaps] = np.nan
    output = module(torch.from_numpy(new))
    assert output.dtype == torch.float64
    np.testing.assert_allclose(output.numpy(), reference.transform(new), atol=1e-9)


def test_unlisted_code_lights_nothing_and_grouped_codes_share_an_output(spec):
    rows = torch.tensor([[60, 25, code, 0] for code in (2, 3, 7)], dtype=torch.float64)
    output = ClinicalPreprocessing(spec)(rows)
    assert output[:, -3:].tolist() == [[0, 0, 1], [0, 0, 1], [0, 0, 0]]


def test_keeps_names_and_dtype(spec):
    module = ClinicalPreprocessing(spec)
    assert (module.in_features, module.out_features, module.num_numeric) == (4, 8, 3)
    assert module.feature_names == spec["features"]
    assert module.output_names == spec["names"]
    assert module(torch.zeros(2, 4)).dtype == torch.float32


def test_stays_exact_when_the_model_goes_to_half_precision(spec):
    rows = torch.tensor([[61.3, torch.nan, 1.0, 0.0]], dtype=torch.float64)
    module = ClinicalPreprocessing(spec)
    expected = module(rows)
    assert torch.equal(torch.nn.Sequential(module).half()(rows), expected)
    assert module.to("meta").fill.device.type == "meta"


def test_works_without_categories(spec):
    numeric_only = {
        **spec,
        "indicators": [],
        "one_hot": {"columns": [], "codes": []},
        "names": ["age", "bmi", "smoker"],
    }
    output = ClinicalPreprocessing(numeric_only)(torch.full((2, 4), torch.nan).double())
    assert output.shape == (2, 3)
    assert output.isfinite().all()


def test_exports(spec):
    module = ClinicalPreprocessing(spec)
    rows = torch.randn(4, 4, dtype=torch.float64)
    batch = {"clinical": {0: torch.export.Dim("batch")}}
    program = torch.export.export(module, (rows,), dynamic_shapes=batch)
    other = torch.full((3, 4), torch.nan, dtype=torch.float64)
    assert torch.equal(program.module()(other), module(other))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("fill",), [1.0], "fill has 1 entries; expected 4"),
        (("fill",), [60.0, float("nan"), 1.0, 0.0], "nan.*expected finite"),
        (("numeric", "scale"), [1.0, 0.0, 1.0], "0.0.*expected positive"),
        (("numeric", "columns"), [0, 1, 4], r"\[4\]; expected 0 to 3"),
        (("one_hot", "codes"), [[0]], "codes has 1 entries; expected 3"),
        (("names",), ["a"], "names has 1 entries; expected 8"),
    ],
)
def test_refuses_a_contradictory_dictionary(spec, path, value, message):
    broken = copy.deepcopy(spec)
    inner = broken
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(ValueError, match=message):
        ClinicalPreprocessing(broken)


def test_refuses_a_dictionary_with_a_key_missing(spec):
    with pytest.raises(ValueError, match=r"lacks \['indicators'\]"):
        ClinicalPreprocessing({k: v for k, v in spec.items() if k != "indicators"})


def test_encoder_widths_and_unknown_activation():
    encoder = ClinicalEncoder(8, out_dim=5, hidden=(16, 7), activation="gelu")
    assert encoder(torch.randn(1, 8)).shape == (1, 5)
    assert len(list(ClinicalEncoder(8, hidden=()).parameters())) == 2
    with pytest.raises(ValueError, match=r"'tanh'.*relu"):
        ClinicalEncoder(8, activation="tanh")


@pytest.mark.parametrize(
    ("name", "package"),
    [("embedded_mlp", "rtdl_num_embeddings"), ("ft_transformer", "rtdl_revisiting_models")],
)
def test_encoder_whose_package_is_absent_says_how_to_get_it(spec, monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"{package}: pip install 'osteofusion\[tabular\]'"):
        build_clinical_encoder(ClinicalPreprocessing(spec), name)


def test_embeddings_are_refused_where_nothing_is_numeric(spec):
    words = {
        **spec,
        "numeric": {"columns": [], "mean": [], "scale": []},
        "names": spec["names"][3:],
    }
    with pytest.raises(ValueError, match="num_numeric is 0"):
        build_clinical_encoder(ClinicalPreprocessing(words), "embedded_mlp")


def test_piecewise_linear_embedding_starts_linear_and_bends_at_quantiles(spec):
    pytest.importorskip("rtdl_num_embeddings", reason="needs the extra `tabular`")
    encoder = build_clinical_encoder(
        ClinicalPreprocessing(spec), "embedded_mlp", embedding="piecewise_linear"
    ).embedding
    line = torch.linspace(-2, 2, 9)[:, None].expand(-1, 3)
    steps = encoder(line).diff(dim=0)
    torch.testing.assert_close(steps, steps[:1].expand_as(steps))
    with torch.no_grad():
        encoder.linear.weight.normal_()
    steps = encoder(line).diff(dim=0)
    assert not torch.allclose(steps, steps[:1].expand_as(steps), atol=1e-2)
