"""Fixtures of all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import stalign

_ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def _quiet():
    """Show no progress bars, and leave the other cores to the other workers of pytest-xdist."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        import torch

        torch.set_num_threads(1)
    with stalign.settings.override(show_progress=False):
        yield


@pytest.fixture(scope="session")
def _toy():
    return stalign.datasets.toy()


@pytest.fixture
def toy(_toy):
    """A fresh copy of the toy section."""
    return _toy.copy()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real sections; the test is skipped where it is absent."""
    folder = Path(os.environ.get("STALIGN_TEST_DATA", _ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real sections at {folder}; set STALIGN_TEST_DATA to their folder")
    return folder
