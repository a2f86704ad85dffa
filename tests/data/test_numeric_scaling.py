from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from osteofusion.data.clinical import ClinicalSchema, Feature, fit_preprocessing, freeze
from osteofusion.models import ClinicalPreprocessing, FusionClassifier

SCHEMA = ClinicalSchema((Feature("age", "numeric"), Feature("female", "binary")))
columns = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20)


def frozen(matrix, scaling):
    return freeze(fit_preprocessing(matrix, SCHEMA, scaling), SCHEMA)


@given(columns)
def test_minmax_brings_training_rows_to_the_unit_interval(ages):
    matrix = np.column_stack([ages, np.arange(len(ages)) % 2])
    encoded = ClinicalPreprocessing(frozen(matrix, "minmax"))(torch.tensor(matrix)).numpy()
    spread = max(ages) - min(ages)
    np.testing.assert_allclose(encoded[:, 1], matrix[:, 1])  # 0/1 stays 0/1
    if spread > 1e-6:
        assert encoded[:, 0].min() == pytest.approx(0, abs=1e-6)
        assert encoded[:, 0].max() == pytest.approx(1, abs=1e-6)
        expected = (np.array(ages) - min(ages)) / spread
        np.testing.assert_allclose(encoded[:, 0], expected, atol=1e-6)
    else:
        assert np.isfinite(encoded).all()


def test_the_default_is_unit_variance():
    matrix = np.column_stack([np.arange(8.0), np.arange(8) % 2])
    assert freeze(fit_preprocessing(matrix, SCHEMA), SCHEMA) == frozen(matrix, "standard")
    assert frozen(matrix, "standard")["numeric"]["scale"][0] == pytest.approx(matrix[:, 0].std())


def test_the_regression_that_a_model_starts_from_does_not_depend_on_the_scaling():
    rng = np.random.default_rng(0)
    matrix = np.column_stack([rng.normal(60, 12, 80), rng.integers(0, 2, 80)])
    target = torch.tensor((matrix[:, 0] + rng.normal(0, 8, 80) > 60).astype(int))
    clinical = torch.tensor(matrix)
    logits = []
    for scaling in ("standard", "minmax"):
        torch.manual_seed(0)
        model = FusionClassifier(2, arm="tabular", preprocessing=frozen(matrix, scaling)).eval()
        model.start_from_regression(clinical, target)
        with torch.no_grad():
            logits.append(model(clinical=clinical))
    assert (logits[0][:, 1] - logits[0][:, 0]).std() > 0.5
    torch.testing.assert_close(logits[0], logits[1], atol=2e-3, rtol=0)
