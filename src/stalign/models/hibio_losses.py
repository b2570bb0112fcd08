"""The losses of HiBio-ST: spots, pathways and regions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from stalign._validate import message
from stalign.models.batch import required
from stalign.models.losses import info_nce

if TYPE_CHECKING:
    from stalign.models.hibio import HiBioST, PairOutputs, SentenceBatch
    from stalign.models.hibio_config import HiBioConfig, PathwayLoss


class HiBioLoss(nn.Module):
    """L_s + lambda_p L_p + lambda_R L_R (eq. 14).

    What the pathway term does is told by `figures` after each call: `positive_share`, spots with a pathway that they
    overlap with; `target_entropy` and `predicted_entropy` in nats, `prototype_cosine` the mean over pairs of pathways.

    Parameters
    ----------
    config
        The network's.
    pathways
        Genes of each pathway as tokens, one list after the other, (m,) int64, and where each starts, (P,) int64; None
        without pathways.

    Examples
    --------
    >>> import torch
    >>> from stalign.models.hibio import HiBioST, SentenceBatch
    >>> from stalign.models.hibio_config import HIBIO_MINI
    >>> from stalign.models.hibio_losses import HiBioLoss
    >>> network, loss = HiBioST(HIBIO_MINI, n_genes=5), HiBioLoss(HIBIO_MINI)
    >>> tokens = torch.tensor([[1, 4, 2], [1, 5, 2]])
    >>> batch = SentenceBatch(torch.rand(2, 424), tokens, tokens > 0)
    >>> sorted(loss(network, batch, network(batch)))
    ['pathway', 'region', 'spot', 'total']
    """

    genes: Tensor | None
    starts: Tensor | None

    def __init__(self, config: HiBioConfig, pathways: tuple[Tensor, Tensor] | None = None) -> None:
        super().__init__()
        self.config = config
        self.figures: dict[str, Tensor] = {}
        genes, starts = pathways if pathways is not None else (None, None)
        self.register_buffer("genes", genes, persistent=False)
        self.register_buffer("starts", starts, persistent=False)

    def forward(
        self,
        network: HiBioST,
        batch: SentenceBatch,
        outputs: PairOutputs,
        *,
        keys: PairOutputs | None = None,
        offset: int = 0,
    ) -> dict[str, Tensor]:
        """Return the terms `spot`, `pathway` and `region`, not weighted, and their weighted sum `total`.

        A term whose weight is 0, or that nothing in the batch has, is zero with a gradient of zero. The mean of each
        over ranks is that of the whole batch.

        Parameters
        ----------
        network
            The network, for its scale and gene vectors.
        batch
            The B spots.
        outputs
            What the network made of them.
        keys
            Outputs of M spots gathered over ranks in the order of ranks; None for `outputs` itself.
        offset
            Position of the first of the B spots in `keys`.

        Raises
        ------
        ValueError
            If images or sentences are absent from the batch.
        """
        weights, keys = self.config.loss, outputs if keys is None else keys
        image = required(outputs.image, "image", reason="is aligned")
        gene = required(outputs.gene, "tokens", reason="is aligned")
        zero = (image.sum() + gene.sum() + required(outputs.predicted, "image", reason="is aligned").sum()) * 0
        temperature = 1 / network.scale()
        spot = pathway = region = zero
        if weights.spot:
            spot = zero + _pair(image, gene, keys, offset, temperature)  # eq. 9 and 10
        if weights.pathway and batch.overlap is not None:
            pathway = zero + self._pathways(network, batch, outputs, keys)  # eq. 6 and 11
        if weights.region and keys.region is not None:
            region = zero + region_loss(keys, temperature, min_members=self.config.regions.min_members)
        total = weights.spot * spot + weights.pathway * pathway + weights.region * region
        return {"total": total, "spot": spot, "pathway": pathway, "region": region}

    def _pathways(self, network: HiBioST, batch: SentenceBatch, outputs: PairOutputs, keys: PairOutputs) -> Tensor:
        if self.genes is None or self.starts is None:
            raise ValueError(message("Expected the genes of pathways", found="none given to `HiBioLoss`"))
        spec = self.config.pathways
        prototypes = network.prototypes(self.genes, self.starts)  # z: (P, w)
        prototypes = _unit(prototypes.detach() if spec.detach else prototypes)
        ids = required(batch.pathways, "pathways", reason="overlaps refer to")  # (B, J)
        overlap = required(batch.overlap, "overlap", reason="pathways need")  # (B, J)
        positive = required(outputs.positive, "overlap", reason="pathways need")  # (B,)
        with torch.autocast(ids.device.type, enabled=False):
            predicted = _unit(required(outputs.predicted, "image", reason="predicts pathways"))  # h(v): (B, w)
            cosine = torch.einsum("bw,bjw->bj", predicted, prototypes[ids.clamp(min=0)])  # (B, J)
            terms, target, guess = pathway_terms(cosine, overlap.to(cosine.dtype), ids >= 0, spec)
            n_all = len(required(keys.image, "image", reason="is aligned"))
            everywhere = required(keys.positive, "overlap", reason="pathways need").sum()  # over all ranks
            share = len(ids) / n_all
            loss = torch.where(positive, terms, torch.zeros_like(terms)).sum() / (everywhere * share).clamp(min=1e-6)
        self.figures = {
            "positive_share": everywhere / n_all,
            "target_entropy": _entropy(target, positive),
            "predicted_entropy": _entropy(guess, positive),
            "prototype_cosine": _mean_cosine(prototypes),
        }
        self.figures = {name: value.detach() for name, value in self.figures.items()}
        return loss


def pathway_terms(cosine: Tensor, overlap: Tensor, there: Tensor, spec: PathwayLoss) -> tuple[Tensor, Tensor, Tensor]:
    """Compare what images predict of pathways with what the sentences overlap with (eq. 11).

    Parameters
    ----------
    cosine
        (B, J) cosines of h(v) and the pathways' vectors.
    overlap
        (B, J) weights w, 0 for negatives.
    there
        (B, J) bool, what is no padding.
    spec
        Temperatures, direction and bound.

    Returns
    -------
    The term of each spot (B,), and log-probabilities of target and prediction (B, J).
    """
    lowest = torch.finfo(cosine.dtype).min / 2  # finite, so that a row without pathways has finite gradients
    target = (overlap / spec.target_temperature).masked_fill(~there, lowest).log_softmax(1)  # log q: (B, J)
    guess = (cosine / spec.temperature).masked_fill(~there, lowest).log_softmax(1)  # log qhat: (B, J)
    first, second = (guess, target) if spec.direction == "reverse" else (target, guess)
    divergence = torch.where(there, first.exp() * (first - second), torch.zeros_like(first)).sum(1)  # (B,)
    return 1 - torch.exp(-divergence / spec.alpha) if spec.bounded else divergence, target, guess


def region_loss(keys: PairOutputs, temperature: Tensor | float, *, min_members: int = 2) -> Tensor:
    """Compare the mean images of regions with their mean sentences (eq. 12 and 13).

    Parameters
    ----------
    keys
        Outputs of all spots of the batch, over all ranks.
    temperature
        That of the spot term.
    min_members
        Spots with an image, and spots with a sentence, that a region needs in the batch.

    Returns
    -------
    () float; zero where fewer than two regions have enough spots.
    """
    region = required(keys.region, "region", reason="is compared")
    image = required(keys.image, "image", reason="is aligned")
    gene = required(keys.gene, "tokens", reason="is aligned")
    ids, place = region.unique(return_inverse=True)  # (R,), (M,)
    means, valid = [], ids >= 0
    for values, there in ((image, keys.image_valid), (gene, keys.gene_valid)):
        ones = torch.ones_like(place, dtype=values.dtype) if there is None else there.to(values.dtype)  # (M,)
        sums = values.new_zeros(len(ids), values.shape[1]).index_add(0, place, values * ones[:, None])  # (R, d)
        members = values.new_zeros(len(ids)).index_add(0, place, ones)  # (R,)
        means.append(sums / members.clamp(min=1)[:, None])
        valid = valid & (members >= min_members)
    forth, back = (
        info_nce(a, b, temperature=temperature, query_valid=valid, keys_valid=valid) for a, b in (means, means[::-1])
    )
    return (forth + back) / 2


def _pair(image: Tensor, gene: Tensor, keys: PairOutputs, offset: int, temperature: Tensor) -> Tensor:
    """Symmetric InfoNCE of the spots that have both (eq. 9 and 10)."""
    masks = [mask for mask in (keys.image_valid, keys.gene_valid) if mask is not None]
    valid = torch.stack(masks).all(0) if masks else None  # (M,)
    own = None if valid is None else valid[offset : offset + len(image)]  # (B,)
    terms = [
        info_nce(
            query,
            required(other, "keys", reason="are compared with"),
            temperature=temperature,
            offset=offset,
            query_valid=own,
            keys_valid=valid,
        )
        for query, other in ((image, keys.gene), (gene, keys.image))
    ]
    return (terms[0] + terms[1]) / 2


def _unit(x: Tensor) -> Tensor:
    """Scale rows to unit length, in float32 or better."""
    return nn.functional.normalize(x if x.dtype == torch.float64 else x.float(), dim=-1)


def _entropy(log_share: Tensor, rows: Tensor) -> Tensor:
    """Mean entropy of the rows that count, in nats."""
    entropy = -(log_share.exp() * log_share).sum(1)
    return torch.where(rows, entropy, torch.zeros_like(entropy)).sum() / rows.sum().clamp(min=1)


def _mean_cosine(units: Tensor) -> Tensor:
    """Mean cosine over pairs of different rows."""
    n = len(units)
    return (units.sum(0).square().sum() - n) / max(n * (n - 1), 1)
