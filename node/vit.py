"""A small vision transformer (Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021).

Patches become tokens, tokens get learned positions, blocks norm before they attend or transform (GELU), and
the mean of all tokens is classified: no class token (as in Beyer et al., arXiv 2205.01580). No dropout.
"""

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from protocol.learning import Model

MLP_RATIO = 4
"""Width within a block's feed-forward part, in widths of a token."""


class Positions(nn.Module):
    """A learned vector for each place, added to the token there; tokens have shape (n, num_tokens, width)."""

    def __init__(self, num_tokens: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_tokens, width))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return tokens that know their place."""
        return tokens + self.weight


class Attention(nn.Module):
    """Self-attention of several heads (Vaswani et al., arXiv 1706.03762, 3.2) within (n, t, width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self.query_key_value = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return softmax(q k^T / sqrt(width / heads)) v of each head, put together by a linear layer."""
        heads = self.query_key_value(tokens).unflatten(
            -1, (3, self._heads, -1)
        )  # n, t, 3, heads, width / heads
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        attended = scaled_dot_product_attention(query, key, value)
        return self.out(attended.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Tokens attend to each other, then each is transformed by itself; both are added to what came in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attend = nn.Sequential(nn.LayerNorm(width), Attention(width, heads))
        self.transform = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, MLP_RATIO * width),
            nn.GELU(),
            nn.Linear(MLP_RATIO * width, width),
        )

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return tokens of the same shape."""
        tokens = tokens + self.attend(tokens)
        return tokens + self.transform(tokens)  # type: ignore[no-any-return]


class Mean(nn.Module):
    """The mean of an image's tokens."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return shape (n, width)."""
        return tokens.mean(dim=1)


class Tokens(nn.Module):
    """What a convolution made of each patch, as a row of tokens."""

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Turn shape (n, width, rows, columns) into (n, rows * columns, width)."""
        return patches.flatten(2).transpose(1, 2)


def vit(model: Model, sample_shape: tuple[int, ...], num_classes: int) -> nn.Sequential:
    """Build patches, positions, blocks, a last LayerNorm, the mean, and a linear layer.

    With C channels, t patches of P x P pixels, width d, depth L and K classes it has
    (C P^2 + 1) d + t d + L (12 d^2 + 13 d) + 2 d + (d + 1) K parameters.
    """
    channels, height, width = sample_shape
    size = model.patch_size
    return nn.Sequential(
        nn.Conv2d(channels, model.width, size, stride=size),
        Tokens(),
        Positions((height // size) * (width // size), model.width),
        *(Block(model.width, model.heads) for _ in range(model.depth)),
        nn.LayerNorm(model.width),
        Mean(),
        nn.Linear(model.width, num_classes),
    )
