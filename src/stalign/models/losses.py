"""The three contrastive terms: images with genes per level, spots with niches across levels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stalign._validate import message

if TYPE_CHECKING:
    from stalign.models.batch import Outputs
    from stalign.models.config import LossConfig

TEMPERATURE_RANGE = (0.01, 1.0)  # bounds of a learned temperature (CLIP's lower bound; 1 leaves cosines as they are)


def info_nce(
    query: Tensor,
    keys: Tensor,
    *,
    temperature: Tensor | float,
    offset: int = 0,
    negatives: Tensor | None = None,
    positive_in_denominator: bool = True,
    query_valid: Tensor | None = None,
    keys_valid: Tensor | None = None,
    negatives_valid: Tensor | None = None,
    exclude: Tensor | None = None,
) -> Tensor:
    r"""InfoNCE of one direction, on cosines: the mean over queries of -log(exp(p / tau) / sum exp(n / tau)).

    The positive of query i is key i + `offset`. The sum runs over all other keys of the batch, or over the negatives
    given, and over the positive too (workshop eq. 10 and 11) unless `positive_in_denominator` is False (arXiv).

    Parameters
    ----------
    query
        (B, d) float.
    keys
        (M, d) float, M >= B: the keys of this batch, or of all ranks together.
    temperature
        tau.
    offset
        Position of the first query's positive in `keys`: rank * B where keys come from several ranks.
    negatives
        (B, m, d) float, negatives of each query, used instead of the other keys (authors' code: m = 5).
    positive_in_denominator
        Whether the sum contains the positive.
    query_valid
        (B,) bool, queries that count; None for all.
    keys_valid
        (M,) bool, keys that count as positives and negatives; None for all.
    negatives_valid
        (B, m) bool, negatives that count; None for all.
    exclude
        (B, M) bool, keys that are no negatives of a query, such as spots in the same niche. Never applies to positives.

    Returns
    -------
    () float. Zero, with a gradient of zero, where no query counts. Where M > B, the sum over queries is divided by the
    number of keys that count and multiplied by M / B, so that the mean over ranks is the mean over all queries.

    Raises
    ------
    ValueError
        If the shapes do not fit.
    """
    n_query, n_keys = len(query), len(keys)
    if query.ndim != 2 or keys.ndim != 2 or query.shape[1] != keys.shape[1] or offset + n_query > n_keys:
        found = f"shapes {tuple(query.shape)} and {tuple(keys.shape)}, offset {offset}"
        raise ValueError(message("Expected queries (B, d) and keys (M, d) with B + offset <= M", found=found))
    query, keys = _single(query), _single(keys)
    negatives = None if negatives is None else _single(negatives)
    target = torch.arange(n_query, device=query.device) + offset  # (B,)
    query, keys = _unit(query), _unit(keys)

    with torch.autocast(query.device.type, enabled=False):
        if negatives is None:
            logits = query @ keys.T / temperature  # (B, M)
            positive = logits.gather(1, target[:, None]).squeeze(1)  # (B,)
            own = F.one_hot(target, n_keys).bool()  # (B, M)
            dropped = _any(~keys_valid[None] if keys_valid is not None else None, exclude, own)  # (B, M)
        else:
            logits = torch.einsum("bd,bmd->bm", query, _unit(negatives)) / temperature  # (B, m)
            positive = (query * keys[target]).sum(-1) / temperature  # (B,)
            dropped = torch.zeros_like(logits, dtype=torch.bool) if negatives_valid is None else ~negatives_valid
        logits = logits.masked_fill(dropped, -torch.inf)
        counts = torch.ones_like(target, dtype=torch.bool) if query_valid is None else query_valid.clone()  # (B,)
        if keys_valid is not None:
            counts &= keys_valid[target]
        if positive_in_denominator:
            logits = torch.cat([positive[:, None], logits], dim=1)  # (B, 1 + M) or (B, 1 + m)
        else:
            has_negative = ~dropped.all(1)  # (B,)
            counts &= has_negative
            logits = torch.where(has_negative[:, None], logits, torch.zeros_like(logits))  # keeps the gradient finite
        terms = logits.logsumexp(1) - positive  # (B,)
        total = torch.where(counts, terms, torch.zeros_like(terms)).sum()
    n = counts.sum() if n_query == n_keys or keys_valid is None else keys_valid.sum() * (n_query / n_keys)
    return total / n.clamp(min=torch.finfo(total.dtype).tiny if n.is_floating_point() else 1)


class AlignmentLoss(nn.Module):
    """lambda_1 L_spot + lambda_2 L_niche + (1 - lambda_1 - lambda_2) L_NS (arXiv eq. 12; workshop, section 3.4).

    Parameters
    ----------
    config
        The options.

    Examples
    --------
    >>> import torch
    >>> from stalign.models import MINI, AlignmentLoss, Batch, STAlign
    >>> network, loss = STAlign(MINI, n_genes=20), AlignmentLoss(MINI.loss)
    >>> batch = Batch(torch.zeros(4, dtype=torch.long), spot_gene=torch.rand(4, 20), niche_gene=torch.rand(4, 20))
    >>> sorted(loss(network(batch)))
    ['cross', 'niche', 'spot', 'total']
    """

    def __init__(self, config: LossConfig) -> None:
        super().__init__()
        self.config = config
        self.log_temperature = (
            nn.Parameter(torch.tensor(math.log(config.temperature))) if config.learn_temperature else None
        )

    @property
    def temperature(self) -> Tensor | float:
        """The temperature tau as it is now."""
        return self.config.temperature if self.log_temperature is None else self.log_temperature.exp()

    def forward(
        self,
        outputs: Outputs,
        *,
        keys: Outputs | None = None,
        offset: int = 0,
        negatives: Outputs | None = None,
        exclude: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return the terms `spot`, `niche` and `cross`, not weighted, and their weighted sum `total`.

        Pairs of which one half is missing are left out; a term without pairs is zero.

        Parameters
        ----------
        outputs
            Outputs of B spots.
        keys
            Outputs of M spots gathered over ranks in the order of ranks; None for `outputs` itself.
        offset
            Position of the first of the B spots in `keys`.
        negatives
            Outputs of B * m spots, m negatives of each anchor one after the other, for `negatives="cluster"`.
        exclude
            (B, M) bool, pairs of spots that are no negatives of each other, such as spots that share a niche. The
            relation has to be symmetric.

        Raises
        ------
        ValueError
            If the configuration asks for given negatives and there are none, or the other way round.
        """
        config = self.config
        if (config.negatives == "cluster") != (negatives is not None):
            found = "none given" if negatives is None else "negatives given"
            raise ValueError(message(f"Expected negatives as `negatives={config.negatives!r}` asks for", found=found))
        if self.log_temperature is not None:
            with torch.no_grad():
                self.log_temperature.clamp_(*map(math.log, TEMPERATURE_RANGE))
        keys = outputs if keys is None else keys
        more: dict[str, Any] = {"keys": keys, "offset": offset, "negatives": negatives, "exclude": exclude}
        terms = {
            "spot": self._term(outputs, "spot_image", "spot_gene", both=config.symmetric, **more),
            "niche": self._term(outputs, "niche_image", "niche_gene", both=config.symmetric, **more),
            "cross": self._term(outputs, "spot_fused", "niche_fused", both=config.symmetric_cross, **more),
        }
        weights = {"spot": config.lambda_spot, "niche": config.lambda_niche, "cross": config.lambda_cross}
        terms["total"] = sum((weights[name] * term for name, term in terms.items()), torch.zeros_like(terms["cross"]))
        return terms

    def _term(self, outputs: Outputs, a: str, b: str, *, both: bool, keys: Outputs, **more: Any) -> Tensor:
        """Return InfoNCE from a to b, or the mean of that and b to a (eq. 10)."""
        if getattr(keys, a) is None or getattr(keys, b) is None:
            return outputs.spot_fused.sum() * 0  # no pair in the whole batch
        forth = self._direction(outputs, a, b, keys=keys, **more)
        return (forth + self._direction(outputs, b, a, keys=keys, **more)) / 2 if both else forth

    def _direction(
        self,
        outputs: Outputs,
        a: str,
        b: str,
        *,
        keys: Outputs,
        offset: int,
        negatives: Outputs | None,
        exclude: Tensor | None,
    ) -> Tensor:
        query = getattr(outputs, a)
        given = None if negatives is None else getattr(negatives, b)
        given_valid = None if negatives is None else _valid(negatives, b)
        return info_nce(
            query,
            getattr(keys, b),
            temperature=self.temperature,
            offset=offset,
            negatives=None if given is None else given.unflatten(0, (len(query), -1)),  # (B * m, D) -> (B, m, D)
            positive_in_denominator=self.config.positive_in_denominator,
            query_valid=_pairs(outputs, a, b),
            keys_valid=_pairs(keys, a, b),
            negatives_valid=None if given_valid is None else given_valid.unflatten(0, (len(query), -1)),
            exclude=exclude,
        )


def shared_niches(members: Tensor, others: Tensor | None = None) -> Tensor:
    """Return which pairs of niches have a spot in common, for `exclude`.

    Parameters
    ----------
    members
        (B, k) int64, the spots of each niche, numbered over all sections; -1 for none.
    others
        (M, k) int64, likewise; None for `members` itself.

    Returns
    -------
    (B, M) bool.
    """
    others = members if others is None else others
    shared = torch.zeros(len(members), len(others), dtype=torch.bool, device=members.device)
    for column in members.T:  # k is small; this keeps memory at B * M * k
        same = (column[:, None, None] == others[None]) & (column >= 0)[:, None, None]  # (B, M, k)
        shared |= same.any(-1)
    return shared


def _unit(x: Tensor) -> Tensor:
    """Scale rows to unit length; a row of zeros, as of a spot without counts, stays one and has a small gradient."""
    norm = x.norm(dim=-1, keepdim=True)
    return x / torch.where(norm > 0, norm, torch.ones_like(norm))


def _single(tensor: Tensor) -> Tensor:
    """Return a tensor in float32, or in float64 where it is that."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _valid(outputs: Outputs, name: str) -> Tensor | None:
    if name.endswith("fused"):
        return None
    return outputs.image_valid if name.endswith("image") else outputs.gene_valid


def _pairs(outputs: Outputs, a: str, b: str) -> Tensor | None:
    masks = [mask for mask in (_valid(outputs, a), _valid(outputs, b)) if mask is not None]
    return torch.stack(masks).all(0) if masks else None


def _any(first: Tensor | None, second: Tensor | None, own: Tensor) -> Tensor:
    """Return the union of masks; the own key is left out of the negatives and added as the positive."""
    result = own
    for mask in (first, second):
        if mask is not None:
            result = result | mask
    return result
