"""Saliency of one radiograph as a graph of plain tensor operations, its gradient included."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel

from osteofusion.explain.saliency import log_odds, normalised, saliency_layer, to_grid
from osteofusion.models.classifier import FusionClassifier


class Saliency:
    """The maps of `osteofusion.explain.saliency.saliency_maps` for one patient, both in one pass.

    Args:
        model: The classifier, in evaluation mode.
        inputs: Names of the inputs that its arm reads, in the order of the call.

    Raises:
        ConfigError: The backbone has no layer to explain.
    """

    outputs = ("gradcam", "hirescam")

    def __init__(self, model: FusionClassifier, inputs: Sequence[str]) -> None:
        self.model = model
        self.inputs = tuple(inputs)
        self.layer = saliency_layer(model)

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return Grad-CAM and HiResCAM, (h, w) float32 in [0, 1], of inputs with one row each."""
        given = dict(zip(self.inputs, inputs, strict=True))
        with torch.no_grad():
            _, activation = self._score(given, None)
        # The gradient by a zero that is added to the layer's output is the one by that output.
        zero = torch.zeros_like(activation)
        gradient, activation = torch.func.grad(
            lambda added: self._score(given, added), has_aux=True
        )(zero)
        height = given["image"].shape[2]
        slope, grid = (to_grid(self.model, each, height) for each in (gradient, activation))
        gradcam = (grid * slope.mean(dim=(2, 3), keepdim=True)).sum(dim=1)
        return normalised(gradcam)[0], normalised((grid * slope).sum(dim=1))[0]

    def trace(self, *inputs: Tensor) -> GraphModule:
        """The same as a graph, for inputs of these shapes."""
        from torch._decomp import core_aten_decompositions

        table: dict[Any, Any] = dict(core_aten_decompositions())
        table[torch.ops.aten.convolution_backward.default] = _convolution_backward
        # The gradient of fused attention is one opaque operation; that of plain attention is not.
        with sdpa_kernel(SDPBackend.MATH):
            return make_fx(self, decomposition_table=table)(*inputs)

    def _score(self, given: dict[str, Tensor], added: Tensor | None) -> tuple[Tensor, Tensor]:
        seen: list[Tensor] = []

        def add(_: nn.Module, __: Any, output: Tensor) -> Tensor:
            seen.append(output)
            return output if added is None else output + added

        with self.layer.register_forward_hook(add):
            score = log_odds(self.model(**given)).sum()
        return score, seen[0]


def _convolution_backward(
    gradient: Tensor,
    image: Tensor,
    weight: Tensor,
    bias_sizes: list[int] | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
    output_mask: list[bool],
) -> tuple[Tensor | None, None, None]:
    """Gradient of a convolution by its input, which is a transposed convolution.

    ONNX has no operation for it, and nothing here asks for the gradient by the weights.
    """
    if transposed or any(output_mask[1:]):
        raise NotImplementedError("the gradient of a transposed convolution")
    left = [
        side - ((out - 1) * step - 2 * pad + spread * (kernel - 1) + 1)
        for side, out, step, pad, spread, kernel in zip(
            image.shape[2:],
            gradient.shape[2:],
            stride,
            padding,
            dilation,
            weight.shape[2:],
            strict=True,
        )
    ]
    by_input = torch.ops.aten.convolution.default(
        gradient, weight, None, stride, padding, dilation, True, left, groups
    )
    return by_input, None, None
