from dataclasses import replace

import numpy as np
import pytest
import torch

from stalign.models import MINI, ST_ALIGN, AEGene, Batch, ConvEncoder, Features, GeneTable, Head, STAlign

torch.set_num_threads(1)  # small tensors, and other workers beside this one
N_GENES = 30


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def mini():
    """`stalign-mini` with everything small: 2 tokens of 8."""
    conv = ConvEncoder(channels=(4, 4, 8, 8))
    return replace(
        MINI,
        spot_image=conv,
        niche_image=replace(conv, stem="strided"),
        spot_gene=GeneTable(width=16, layers=1, hidden=8),
        niche_gene=GeneTable(width=16, layers=1, hidden=8),
        head=Head(hidden=6, out=16),
        n_tokens=2,
        token_dim=8,
        n_heads=2,
        head_dim=4,
        fusion_hidden=5,
    )


@pytest.fixture
def paper():
    """`st-align` with everything small: 2 tokens of 8."""
    return replace(
        ST_ALIGN,
        spot_image=ConvEncoder(
            channels=(2, 2, 2, 4), blocks=(1, 1, 1, 1), block="bottleneck", features=8, tokens="conv"
        ),
        niche_image=Features(dim=16),
        spot_gene=Features(dim=8),
        niche_gene=AEGene(hidden=(10, 7), width=6, layers=2, heads=2, head_dim=5, mlp=9, out_hidden=4),
        head=Head(hidden=12, out=10),
        n_tokens=2,
        token_dim=8,
        n_heads=2,
        head_dim=4,
        fusion_hidden=5,
    )


@pytest.fixture
def make_batch():
    """A batch of n spots for the small `stalign-mini`: images, and genes on the bases of two sections."""

    def make(n=6, *, n_sections=2, rank=3, n_genes=N_GENES, seed=0):
        g = torch.Generator().manual_seed(seed)
        return Batch(
            section=torch.randint(0, n_sections, (n,), generator=g),
            spot_image=torch.randint(0, 256, (n, 3, 12, 12), generator=g, dtype=torch.uint8),
            niche_image=torch.randint(0, 256, (n, 3, 16, 16), generator=g, dtype=torch.uint8),
            image_mean=torch.rand(n_sections, 3, generator=g),
            image_std=torch.rand(n_sections, 3, generator=g) + 0.1,
            spot_gene=torch.randn(n, rank, generator=g),
            niche_gene=torch.randn(n, rank, generator=g),
            basis=torch.randn(n_sections, rank, n_genes, generator=g),
        )

    return make


@pytest.fixture
def make_paper_batch():
    """A batch of n spots for the small `st-align`."""

    def make(n=6, *, seed=0):
        g = torch.Generator().manual_seed(seed)
        return Batch(
            section=torch.zeros(n, dtype=torch.long),
            spot_image=torch.randint(0, 256, (n, 3, 12, 12), generator=g, dtype=torch.uint8),
            niche_image=torch.randn(n, 16, generator=g),
            spot_gene=torch.randn(n, 8, generator=g),
            niche_gene=torch.rand(n, N_GENES, generator=g),
        )

    return make


@pytest.fixture
def stirred():
    """Build a network whose zero-initialised layers hold numbers too, as after training."""

    def build(config, *, n_genes=N_GENES, seed=0):
        torch.manual_seed(seed)
        network = STAlign(config, n_genes)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        return network.eval()

    return build
