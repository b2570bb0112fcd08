"""The shapes that `models/network.py` writes beside its lines: every part is watched in one forward pass."""

from __future__ import annotations

import pytest

B, S, L = 5, 2, 8  # spots, tokens, width of a token, as in conftest


@pytest.mark.parametrize("name", ["mini", "paper"])
def test_each_part_returns_the_shape_that_is_written_beside_it(name, request, make_batch, make_paper_batch, stirred):
    config = request.getfixturevalue(name)
    network, seen = stirred(config), {}

    def watch(part):
        return lambda _, given, found: seen.__setitem__(part, ([tuple(x.shape) for x in given[:1]], tuple(found.shape)))

    for part, module in network.named_modules():
        if part:
            module.register_forward_hook(watch(part))
    network(make_batch(B) if name == "mini" else make_paper_batch(B))
    returned = {part: shape for part, (_, shape) in seen.items()}
    for level in ("spot", "niche"):
        assert returned[f"image_encoders.{level}"] == (B, S, L)  # eq. 3 and 4
        assert returned[f"gene_encoders.{level}"] == (B, S, L)  # eq. 5 and 6
        assert returned[f"fusions.{level}.operator.image"] == (B, S, L // 2)  # eq. 7
        assert returned[f"fusions.{level}.operator.gene"] == (B, S, L // 2)  # eq. 8
        assert returned[f"fusions.{level}.operator"] == (B, S, L)  # eq. 9
        for kind in ("image", "gene", "fused"):
            assert seen[f"heads.{level}_{kind}"] == ([(B, S, L)], (B, config.head.out))
    if name == "mini":
        assert seen["gene_table"] == ([(B, 3)], (B, S * L))  # scores on three components
    else:
        assert seen["gene_encoders.niche.mlp"] == ([(B, 30)], (B, S * 6))
        assert returned["gene_encoders.niche.blocks"] == (B, S, 6)
        assert seen["image_encoders.niche"][0] == [(B, 16)]
