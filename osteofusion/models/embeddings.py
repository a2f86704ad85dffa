"""Clinical encoders that embed each value before mixing; they need the extra ``tabular``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from osteofusion.errors import ConfigError
from osteofusion.models.registry import build
from osteofusion.models.tabular import ClinicalEncoder, ClinicalPreprocessing


class EmbeddedMLP(ClinicalEncoder):
    """An MLP whose numeric inputs are embedded first (Gorishniy et al., arXiv 2203.05556).

    Args:
        in_features: Width D of the preprocessed clinical vector.
        num_numeric: How many of its leading columns are standardised numbers.
        out_dim: Width of the encoding.
        embedding: ``periodic`` or ``piecewise_linear``.
        d_embedding: Width of the embedding of one number.
        hidden: Widths of the hidden layers.
        dropout: Probability of dropping a hidden unit in training.

    The edges of the piecewise-linear bins are quantiles of the standard normal distribution, not
    of the training rows as in the paper: inputs arrive standardised, and the architecture then
    follows from its arguments alone.

    Shape:
        (B, D) -> (B, ``out_dim``)

    Raises:
        ConfigError: ``rtdl_num_embeddings`` is not installed.
    """

    def __init__(
        self,
        in_features: int,
        num_numeric: int,
        out_dim: int = 16,
        embedding: str = "periodic",
        d_embedding: int = 8,
        hidden: Sequence[int] = (32,),
        dropout: float = 0.3,
    ) -> None:
        if num_numeric == 0:
            raise ValueError("num_numeric is 0; expected at least one number to embed")
        rest = in_features - num_numeric
        super().__init__(rest + num_numeric * d_embedding, out_dim, hidden, dropout=dropout)
        self.num_numeric = num_numeric
        package = _optional("rtdl_num_embeddings")
        if embedding == "periodic":
            self.embedding = package.PeriodicEmbeddings(num_numeric, d_embedding, lite=False)
        elif embedding == "piecewise_linear":
            edges = torch.special.ndtri(torch.linspace(0.005, 0.995, 9))
            self.embedding = package.PiecewiseLinearEmbeddings(
                [edges] * num_numeric, d_embedding, activation=False, version="B"
            )
        else:
            raise ValueError(
                f"embedding is {embedding!r}; expected 'periodic' or 'piecewise_linear'"
            )

    def forward(self, values: Tensor) -> Tensor:
        """Encode a (B, D) preprocessed clinical matrix as (B, ``out_dim``)."""
        numeric, rest = values[:, : self.num_numeric], values[:, self.num_numeric :]
        return super().forward(torch.cat([self.embedding(numeric).flatten(1), rest], dim=1))


class FTTransformer(nn.Module):
    """A transformer over one token per clinical value (Gorishniy et al., arXiv 2106.11959).

    Indicators and one-hot outputs are embedded like numbers; for a 0/1 value a linear embedding is
    a learned vector that is there or not.

    Args:
        in_features: Width D of the preprocessed clinical vector.
        out_dim: Width of a token and of the encoding; a multiple of ``heads``.
        blocks: Number of transformer blocks.
        heads: Number of attention heads.
        dropout: Dropout of attention and of the feed-forward layers in training.

    Shape:
        - ``forward``: (B, D) -> (B, ``out_dim``)
        - ``forward_tokens``: (B, D) -> (B, 1 + D, ``out_dim``), the encoding first

    Raises:
        ConfigError: ``rtdl_revisiting_models`` is not installed.
    """

    def __init__(
        self,
        in_features: int,
        out_dim: int = 32,
        blocks: int = 2,
        heads: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        package = _optional("rtdl_revisiting_models")
        self.out_dim = out_dim
        self.embedding = package.LinearEmbeddings(in_features, out_dim)
        self.summary = nn.Parameter(torch.randn(out_dim) * out_dim**-0.5)
        self.backbone = package.FTTransformerBackbone(
            d_out=None,
            n_blocks=blocks,
            d_block=out_dim,
            attention_n_heads=heads,
            attention_dropout=dropout,
            ffn_d_hidden_multiplier=4 / 3,
            ffn_dropout=dropout,
            residual_dropout=0.0,
        )

    def forward(self, values: Tensor) -> Tensor:
        """Encode a (B, D) preprocessed clinical matrix as (B, ``out_dim``)."""
        return self.forward_tokens(values)[:, 0]

    def forward_tokens(self, values: Tensor) -> Tensor:
        """Return the encoding and the embedded values as (B, 1 + D, ``out_dim``) tokens."""
        tokens = self.embedding(values)
        summary = self.summary.expand(values.shape[0], 1, -1)
        encoded = self.backbone(torch.cat([summary, tokens], dim=1))
        return torch.cat([encoded[:, None], tokens], dim=1)


CLINICAL_ENCODERS: dict[str, Callable[..., ClinicalEncoder | FTTransformer]] = {
    "mlp": ClinicalEncoder,
    "embedded_mlp": EmbeddedMLP,
    "ft_transformer": FTTransformer,
}


def build_clinical_encoder(
    preprocessing: ClinicalPreprocessing,
    name: str = "mlp",
    **options: Any,
) -> ClinicalEncoder | FTTransformer:
    """Build the encoder called ``name`` on top of ``preprocessing``.

    Raises:
        ValueError: Unknown name or option.
        ConfigError: A package that the encoder needs is not installed.
    """
    widths = [preprocessing.out_features]
    if name == "embedded_mlp":
        widths.append(preprocessing.num_numeric)
    return build("clinical encoder", CLINICAL_ENCODERS, name, *widths, **options)


def _optional(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"This clinical encoder needs the package {name}: pip install 'osteofusion[tabular]'."
        ) from error
