"""Shared by all tests: real data where it lies beside the checkout, and a cache of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory, worker_id="main"):
    patch = pytest.MonkeyPatch()
    # One folder for all test processes: entries are keyed by content and written atomically.
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if base.name.startswith("popen-") else base
    patch.setenv("OSTEOFUSION_CACHE", str(shared / "cache"))
    yield
    patch.undo()


@pytest.fixture(scope="session")
def mendeley() -> Path:
    """The real cohort, scaled."""
    return _real(SHARED / "mendeley")


@pytest.fixture(scope="session")
def rsna() -> Path:
    """810 hand radiographs without a bone-status label."""
    return _real(SHARED / "rsna_boneage")


def _real(path: Path) -> Path:
    if not path.is_dir():
        pytest.skip(f"real data not beside the checkout ({path.name})")
    return path.resolve()
