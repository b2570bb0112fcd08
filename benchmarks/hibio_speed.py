"""What HiBio-ST costs: CPU seconds per 1,000 spots on one thread, for sentences, encoding and training.

python benchmarks/hibio_speed.py [--weights hibio-mini] [--rows 30] [--out DIR]

Spots are those of the toy section. A training step reads 256 spots whose image features are there, as the trainer has
them for a frozen tower; its time grows with the square of the sentence, by attention.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

import stalign
from stalign.models.branches import Features
from stalign.models.gene_tokens import GeneTokens
from stalign.models.hibio import HiBioST, SentenceBatch
from stalign.models.hibio_losses import HiBioLoss
from stalign.models.weights import load_weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from stalign.models.hibio_config import HiBioConfig

LENGTHS = (32, 64, 100, 250, 500)
BATCH, VOCABULARY = 256, 4000


def seconds(work: Callable[[], object], spots: int) -> float:
    """CPU seconds per 1,000 spots, the second time."""
    work()
    start = time.process_time()
    work()
    return 1000 * (time.process_time() - start) / spots


def training(config: HiBioConfig, length: int) -> Callable[[], None]:
    """One step of the spot term on made features and sentences of a length."""
    config = replace(
        config,
        image=Features(dim=424),
        text=replace(config.text, context=length + 30),
        sentence=replace(config.sentence, length=length),
        loss=replace(config.loss, pathway=0.0, region=0.0),
    )
    network, rng = HiBioST(config, VOCABULARY).train(), np.random.default_rng(0)
    genes = np.array([rng.permutation(VOCABULARY)[:length] for _ in range(BATCH)], dtype=np.int32)
    tokens, mask = GeneTokens([f"G{i}" for i in range(VOCABULARY)]).encode(genes)
    batch = SentenceBatch(image=torch.randn(BATCH, 424), tokens=tokens, mask=mask)
    loss, optimiser = HiBioLoss(config), torch.optim.AdamW(network.parameters())

    def step() -> None:
        optimiser.zero_grad()
        loss(network, batch, network(batch))["total"].backward()
        optimiser.step()

    return step


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="hibio-mini")
    parser.add_argument("--rows", type=int, default=30)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    stalign.settings.show_progress, stalign.settings.verbosity = False, "error"
    adata = stalign.datasets.toy(given.rows)
    name = "hibio-mini" if given.weights == "hibio-mini" else "hibio"
    options = {"weights": None if name == "hibio-mini" else given.weights, "cache": False}
    found = {
        "sentences": seconds(lambda: stalign.tl.sentences(adata, given.weights), adata.n_obs),
        "encoding sentences": seconds(lambda: stalign.tl.encode(adata, name, modality="gene", **options), adata.n_obs),
        "encoding images": seconds(lambda: stalign.tl.encode(adata, name, modality="image", **options), adata.n_obs),
    }
    config = load_weights(given.weights).config
    for length in LENGTHS:
        found[f"training for an epoch, sentences of {length}"] = seconds(training(config, length), BATCH)
    lines = ["| CPU seconds per 1,000 spots, one thread | |", "|---|---|"]
    lines += [f"| {step} | {value:.1f} |" for step, value in found.items()]
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "hibio-speed.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
