"""HiBio-ST in training: sentences of a run's sections, pathways, regions and the steps."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from stalign._settings import logger
from stalign.core.regions import regions
from stalign.models.hibio_losses import HiBioLoss
from stalign.models.turns import turn
from stalign.train.augment import jitter
from stalign.train.hibio_data import PairedSection, images_of
from stalign.train.ranks import joined, several
from stalign.train.steps import TrainingModule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stalign.models.gene_tokens import GeneTokens
    from stalign.models.hibio import HiBioST, PairOutputs
    from stalign.train.hibio_data import SentenceStep
    from stalign.train.options import OptimConfig

UNKNOWN = "?"  # of an organ or a disease that nothing is said of
_CHUNK = 512  # spots embedded at one time
_FEW = 0.5  # share of spots with a pathway below which the term is next to nothing


class HiBioModule(TrainingModule):
    """Trains HiBio-ST on batches of patches and sentences.

    Parameters
    ----------
    network
        The network.
    optim
        The optimiser and its schedules.
    tokens
        Its tokens.
    sections
        Sections that are trained on.
    n_spots
        Spots of all sections of the run.
    pathways
        Genes of each pathway as tokens, (m,) int64, and where each starts, (P,) int64; None without pathways.
    renewals
        Steps before which regions are made anew.
    more
        See `TrainingModule`.
    """

    term_names: ClassVar = ("total", "spot", "pathway", "region")
    value_names: ClassVar = (
        "temperature", "positive_share", "target_entropy", "predicted_entropy", "prototype_cosine", "regions",
    )  # fmt: skip
    regions: Tensor

    def __init__(
        self,
        network: HiBioST,
        optim: OptimConfig,
        *,
        tokens: GeneTokens,
        sections: Sequence[PairedSection],
        n_spots: int,
        pathways: tuple[Tensor, Tensor] | None = None,
        renewals: Sequence[int] = (),
        **more: Any,
    ) -> None:
        super().__init__(optim, **more)
        self.network = network
        self.loss = HiBioLoss(network.config, pathways)
        self.tokens, self.sections, self.renewals = tokens, list(sections), frozenset(renewals)
        self.register_buffer("regions", torch.full((n_spots,), -1))  # in checkpoints, so that a resumed run has them

    def terms(self, step: SentenceStep) -> dict[str, Tensor]:
        """Return the terms of the loss.

        Parameters
        ----------
        step
            The spots of this process.

        Returns
        -------
        The terms by name, among them `total`. Each process compares its spots with those of all processes.
        """
        batch = step.batch
        if step.draws is not None and batch.image is not None:
            image = jitter(turn(batch.image, step.draws.flip, step.draws.turns), step.draws.stain)
            batch = replace(batch, image=image)
        if self.training and self.renewals and self.global_step >= min(self.renewals):
            batch = replace(batch, region=self.regions[step.numbers])
        outputs: PairOutputs = self.network(batch)
        keys, offset = outputs, 0
        if several():
            keys, offset = outputs.apply(_joined), dist.get_rank() * len(step)
        return self.loss(self.network, batch, outputs, keys=keys, offset=offset)

    def values(self) -> dict[str, Tensor | float]:
        """Return the temperature, and what the pathway term does."""
        regions = (self.regions.max() + 1).float() if self.renewals else 0.0
        return {"temperature": 1 / self.network.scale().detach(), **self.loss.figures, "regions": regions}

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Set what follows from the step, and make regions anew where it is time."""
        super().on_train_batch_start(batch, batch_idx)
        if self.global_step in self.renewals:
            self.renew(seed=self.seed + self.global_step)

    def on_train_end(self) -> None:
        """Tell of a pathway term that hardly any spot takes part in."""
        super().on_train_end()
        share = self.loss.figures.get("positive_share")
        if share is not None and float(share) < _FEW:
            hint = 'Lower `model.pathways.overlap`, set `positives = "top"`, or name other sets in `data.pathways`'
            logger.warning("Only %.0f %% of spots overlap with a pathway. %s.", 100 * float(share), hint)

    def renew(self, *, seed: int) -> None:
        """Cut each section into regions by place and by what the network makes of its spots (eq. 7 and 8)."""
        spec, n = self.network.config.regions, 0
        found = torch.full_like(self.regions, -1)
        for section in self.sections if not several() or dist.get_rank() == 0 else ():
            rows = section.stored.rows
            image, gene = self._embedded(section, rows)
            labels = regions(
                section.stored.reader.coords[rows],
                [image, gene],
                n_neighbors=spec.neighbors,
                resolution=spec.resolution,
                alpha=spec.alpha,
                beta=spec.beta,
                seed=seed,
            )
            numbers = torch.from_numpy(section.first + rows)
            found[numbers] = torch.from_numpy(np.where(labels >= 0, labels + n, -1)).to(found)
            n += int(labels.max(initial=-1)) + 1
        if several():
            dist.broadcast(found, 0)
        self.regions.copy_(found)
        logger.info("Step %d: %d regions in %d sections.", self.global_step, int(found.max()) + 1, len(self.sections))

    def _embedded(self, section: PairedSection, rows: NDArray[np.intp]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Embed spots without augmentation: v and t, (b, d) each; NaN for a spot without a sentence."""
        shape = self.network.config
        parts: list[tuple[Tensor, Tensor]] = []
        self.network.eval()
        with torch.no_grad():
            for start in range(0, len(rows), _CHUNK):
                some = rows[start : start + _CHUNK]
                genes = section.genes[some]
                ids, mask = self.tokens.encode(genes, [section.words] * len(some), context=shape.text.context)
                image = self.network.embed_image(images_of(section.stored, some, shape.input.px).to(self.device))
                gene = self.network.embed_text(ids.to(self.device), mask.to(self.device)).float().cpu()
                gene[genes[:, 0] < 0] = torch.nan
                parts.append((image.float().cpu(), gene))
        self.network.train()
        return torch.cat([image for image, _ in parts]).numpy(), torch.cat([gene for _, gene in parts]).numpy()


def _joined(tensor: Tensor) -> Tensor:
    """Join a tensor of all processes, in float32 where it has fractions."""
    return joined(tensor.float() if tensor.is_floating_point() else tensor)
