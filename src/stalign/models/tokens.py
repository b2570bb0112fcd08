"""One feature vector per patch or profile, made into tokens."""

from __future__ import annotations

from torch import Tensor, nn

from stalign._validate import message


class Tokens(nn.Module):
    """(B, d) features to (B, s, l) tokens.

    Parameters
    ----------
    n_features
        d, width of the features.
    n_tokens
        s.
    token_dim
        l.
    kind
        `linear`: one linear layer to s * l. `conv`: the authors' way, in which each token is the feature vector folded
        to l by a convolution of width and stride d / l, of which each token has its own.

    Raises
    ------
    ValueError
        If `kind` is `conv` and d is no multiple of l.
    """

    def __init__(self, n_features: int, *, n_tokens: int, token_dim: int, kind: str) -> None:
        super().__init__()
        self.shape = (n_tokens, token_dim)
        self.kind = kind
        if kind == "linear":
            self.layer: nn.Module = nn.Linear(n_features, n_tokens * token_dim)
            return
        if n_features % token_dim:
            expected = f"Expected features whose width is a multiple of the token width {token_dim}"
            raise ValueError(message(expected, found=n_features, hint="Use `tokens='linear'` for this encoder"))
        fold = n_features // token_dim
        self.layer = nn.Conv1d(1, n_tokens, kernel_size=fold, stride=fold)

    def forward(self, features: Tensor) -> Tensor:
        """Return the tokens.

        Parameters
        ----------
        features
            (B, d) float.
        """
        if self.kind == "linear":
            return self.layer(features).unflatten(1, self.shape)  # (B, s * l) -> (B, s, l)
        return self.layer(features.unsqueeze(1))  # (B, 1, d) -> (B, s, d / fold) = (B, s, l)
