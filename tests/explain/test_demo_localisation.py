"""Saliency of a trained image arm points to where the demo cohort draws its signal."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from osteofusion.data.demo import write_demo
from osteofusion.explain.saliency import METHODS

BENCHMARK = Path(__file__).resolve().parents[1] / "benchmarks" / "saliency.py"


@pytest.mark.slow
def test_maps_peak_where_the_signal_was_drawn(cli, tmp_path):
    spec = importlib.util.spec_from_file_location("saliency_benchmark", BENCHMARK)
    benchmark = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    demo = write_demo(tmp_path / "demo", subjects=400)
    result = cli("fit", *benchmark.options(demo), cwd=tmp_path)
    assert result.code == 0, result.err
    found = benchmark.measure(tmp_path / "runs" / "binary" / "version_0")
    for method in METHODS:
        assert found.hits[method] >= 2 * found.area
        assert found.hits[method] > found.centre
        assert found.hits[method] > found.untrained[method]
