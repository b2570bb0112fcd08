from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import stalign as st
from stalign.train.config import DataConfig, RunConfig, SamplerConfig, SectionSpec, TrainConfig
from stalign.train.slides import Slide

TINY = {
    "base": "stalign-mini",
    "spot_image": {"kind": "conv", "channels": [8, 8, 8, 8]},
    "niche_image": {"kind": "conv", "channels": [8, 8, 8, 8], "stem": "strided"},
    "n_tokens": 4,
    "token_dim": 8,
    "n_heads": 2,
    "head_dim": 4,
    "fusion_hidden": 8,
    "spot_gene": {"width": 32, "hidden": 16, "layers": 1},
    "niche_gene": {"width": 32, "hidden": 16, "layers": 1},
    "head": {"hidden": 8, "out": 32},
    "input": {"spot_px": 8, "niche_px": 16, "rank": 8},
}


@pytest.fixture(autouse=True)
def _quiet_and_single_threaded():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with st.settings.override(show_progress=False, verbosity="error", device="cpu"):
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_model():
    return TINY


@pytest.fixture(scope="session")
def toy2():
    """Two sections of the toy, 12 rows each."""
    return st.datasets.toy(n_rows=12, n_sections=2)


@pytest.fixture
def slides(toy2):
    return [Slide(SectionSpec("toy.h5ad", library_key="library", study="toy study"), toy2)]


@pytest.fixture
def tiny(tmp_path):
    """Make the configuration of a run of a few steps; keywords replace parts of it."""

    def make(**changes):
        config = TrainConfig(
            name="tiny",
            out=str(tmp_path / "run"),
            model=TINY,
            data=DataConfig(min_spots=20),
            sampler=SamplerConfig(batch_size=64, sections_per_batch=2),
            run=RunConfig(
                epochs=2,
                log_every=1,
                checkpoint_every=2,
                tensorboard=False,
                accelerator="cpu",
                devices=1,
                precision="32-true",
            ),
        )
        run = changes.pop("run", {})
        return replace(config, run=replace(config.run, **run), **changes)

    return make
