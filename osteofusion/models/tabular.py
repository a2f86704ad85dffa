"""Clinical values: preprocessing frozen into the model, and the encoder on top of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU}


class ClinicalPreprocessing(nn.Module):
    """Imputation, scaling, missing indicators and one-hot codes as fixed tensors.

    The numbers are learned elsewhere, on training rows, and arrive as one plain dictionary::

        {"features": [F column names, in the order of the matrix],
         "fill": [F values that replace NaN],
         "numeric": {"columns": [...], "mean": [...], "scale": [...]},
         "indicators": [columns whose absence becomes a 0/1 output],
         "one_hot": {"columns": [source of each output], "codes": [[codes that light it], ...]},
         "names": [D output names: numeric, then indicators, then one-hot]}

    A code that no output lists lights nothing.

    Shape:
        (B, F) float64, NaN where missing -> (B, D), finite, of the same dtype.

    Raises:
        ValueError: The dictionary contradicts itself.
    """

    fill: Tensor
    mean: Tensor
    scale: Tensor
    codes: Tensor
    numeric_columns: Tensor
    indicator_columns: Tensor
    one_hot_columns: Tensor

    def __init__(self, spec: Mapping[str, Any]) -> None:
        super().__init__()
        _check_spec(spec)
        numeric, one_hot = spec["numeric"], spec["one_hot"]
        self.feature_names = [str(name) for name in spec["features"]]
        self.output_names = [str(name) for name in spec["names"]]
        self.in_features = len(self.feature_names)
        self.out_features = len(self.output_names)
        self.num_numeric = len(numeric["columns"])
        width = max((len(codes) for codes in one_hot["codes"]), default=0)
        padded = [[*codes, *[math.nan] * (width - len(codes))] for codes in one_hot["codes"]]
        for name, values in {
            "fill": spec["fill"],
            "mean": numeric["mean"],
            "scale": numeric["scale"],
            "codes": padded,  # NaN equals nothing, so padding never matches
        }.items():
            self.register_buffer(name, torch.tensor(values, dtype=torch.float64))
        for name, values in {
            "numeric_columns": numeric["columns"],
            "indicator_columns": spec["indicators"],
            "one_hot_columns": one_hot["columns"],
        }.items():
            self.register_buffer(name, torch.tensor(values, dtype=torch.long))

    def forward(self, clinical: Tensor) -> Tensor:
        """Return the (B, D) model inputs for a (B, F) matrix in canonical units."""
        values = clinical.to(self.fill.dtype)
        missing = values.isnan()
        filled = torch.where(missing, self.fill, values)
        outputs = [
            (filled[:, self.numeric_columns] - self.mean) / self.scale,
            missing[:, self.indicator_columns].to(values.dtype),
        ]
        if len(self.codes):
            sources = filled[:, self.one_hot_columns]
            outputs.append((sources[:, :, None] == self.codes).any(dim=2).to(values.dtype))
        return torch.cat(outputs, dim=1).to(clinical.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ClinicalPreprocessing:
        """Follow the model to another device, but not to a lower precision."""
        exact = dict(self.named_buffers())
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, buffer in exact.items():
            setattr(self, name, buffer.to(getattr(self, name).device))
        return self


class ClinicalEncoder(nn.Module):
    """A multilayer perceptron: linear, layer norm, activation and dropout per hidden layer.

    Args:
        in_features: Width D of the preprocessed clinical vector.
        out_dim: Width of the encoding.
        hidden: Widths of the hidden layers; none makes the encoder linear.
        activation: ``relu`` or ``gelu``.
        dropout: Probability of dropping a hidden unit in training.

    Shape:
        - ``forward``: (B, D) -> (B, ``out_dim``)
        - ``forward_tokens``: (B, D) -> (B, 1, ``out_dim``), the encoding as one token
    """

    def __init__(
        self,
        in_features: int,
        out_dim: int = 16,
        hidden: Sequence[int] = (32,),
        activation: str = "relu",
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation is {activation!r}; expected one of {list(ACTIVATIONS)}")
        layers: list[nn.Module] = []
        width = in_features
        for size in hidden:
            layers += [nn.Linear(width, size), nn.LayerNorm(size)]
            layers += [ACTIVATIONS[activation](), nn.Dropout(dropout)]
            width = size
        self.layers = nn.Sequential(*layers, nn.Linear(width, out_dim))
        self.out_dim = out_dim

    def forward(self, values: Tensor) -> Tensor:
        """Encode a (B, D) preprocessed clinical matrix as (B, ``out_dim``)."""
        encoded: Tensor = self.layers(values)
        return encoded

    def forward_tokens(self, values: Tensor) -> Tensor:
        """Return the encoding as a single token, (B, 1, ``out_dim``)."""
        return self.forward(values)[:, None]


def _check_spec(spec: Mapping[str, Any]) -> None:
    expected = ("features", "fill", "numeric", "indicators", "one_hot", "names")
    if absent := [key for key in expected if key not in spec]:
        raise ValueError(f"clinical preprocessing lacks {absent}; expected {list(expected)}")
    numeric, one_hot = spec["numeric"], spec["one_hot"]
    features = len(spec["features"])
    outputs = len(numeric["columns"]) + len(spec["indicators"]) + len(one_hot["columns"])
    for name, values, length in (
        ("fill", spec["fill"], features),
        ("numeric.mean", numeric["mean"], len(numeric["columns"])),
        ("numeric.scale", numeric["scale"], len(numeric["columns"])),
        ("one_hot.codes", one_hot["codes"], len(one_hot["columns"])),
        ("names", spec["names"], outputs),
    ):
        if len(values) != length:
            raise ValueError(f"{name} has {len(values)} entries; expected {length}")
    if outputs == 0:
        raise ValueError("clinical preprocessing has no output; expected at least one")
    for name, values in (
        ("numeric.columns", numeric["columns"]),
        ("indicators", spec["indicators"]),
        ("one_hot.columns", one_hot["columns"]),
    ):
        if wrong := [column for column in values if not 0 <= column < features]:
            raise ValueError(f"{name} names columns {wrong}; expected 0 to {features - 1}")
    for name, values in (
        ("fill", spec["fill"]),
        ("numeric.mean", numeric["mean"]),
        ("numeric.scale", numeric["scale"]),
    ):
        if wrong := [value for value in values if not math.isfinite(value)]:
            raise ValueError(f"{name} holds {wrong}; expected finite numbers")
    if wrong := [value for value in numeric["scale"] if value <= 0]:
        raise ValueError(f"numeric.scale holds {wrong}; expected positive numbers")
