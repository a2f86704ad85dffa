"""The notebook that ships with the package runs from its first cell to its last."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import osteofusion

NOTEBOOK = Path(osteofusion.__file__).parent / "notebooks" / "walkthrough.ipynb"
TOY = """from pathlib import Path
WORK = Path({work!r})
MANIFEST, ROOT = "demo", Path({demo!r})
TRAINING = ["--data.image_size", "32", "--model.backbone", "test_resnet.r160_in1k"]
TRAINING += ["--model.pretrained", "false", "--trainer.max_epochs", "1"]
"""


@pytest.fixture(scope="module")
def executed(demo, tmp_path_factory):
    """The notebook's cells by their first line, once it has run at toy size."""
    work = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (settings,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    settings.source = TOY.format(work=str(work), demo=str(demo))
    context = {"metadata": {"path": str(work)}}
    NotebookClient(notebook, timeout=300, resources=context).execute()
    return notebook, work


def shown(notebook, begins) -> str:
    """All that a cell put out."""
    (cell,) = [cell for cell in notebook.cells if cell.source.startswith(begins)]
    parts = [out.get("text") or out.get("data", {}).get("text/plain", "") for out in cell.outputs]
    return "\n".join(parts)


def test_every_step_of_the_pipeline_has_left_its_files(executed):
    notebook, work = executed
    assert (work / "audit" / "report.txt").is_file()
    assert (work / "runs" / "binary" / "version_0" / "metrics.json").is_file()
    assert (work / "report.html").is_file()
    assert "identical" in shown(notebook, "cohort = build_cohort")
    assert "SYNTHETIC" in shown(notebook, "data = [")


def test_the_table_has_the_layout_of_the_seeds(executed):
    notebook, _ = executed
    for begins in ("CLASSES =", "baselines ="):
        table = shown(notebook, begins)
        for word in ("precision", "recall", "F1", "support", "normal", "low_bmd", "accuracy",
                     "AUROC"):  # fmt: skip
            assert word in table
    assert "gap" in shown(notebook, "accuracy_gap")


def test_it_is_shipped_without_output():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells)
