"""Where a model looks: class activation maps of the log-odds of low BMD."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from osteofusion.errors import ConfigError
from osteofusion.explain import METHODS
from osteofusion.models.classifier import FusionClassifier
from osteofusion.models.image import ImageEncoder, SimpleCNN, StagedEncoder


def log_odds(logits: Tensor) -> Tensor:
    """Log-odds of low BMD (B,), class 0 against all others, of logits (B, C)."""
    return logits[:, 1:].logsumexp(dim=1) - logits[:, 0]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, and afterwards the mode from before."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def saliency_layer(model: FusionClassifier) -> nn.Module:
    """The layer whose output is explained; `to_grid` brings that output to (B, C, h, w).

    Of a CNN, ConvNeXt or Swin it is the layer that returns the last feature map. Of a transformer
    over tokens it is the first norm of the last block: behind that block a class token no longer
    hears the patches, and their gradient is zero.

    Raises:
        ConfigError: The model reads no image, or its backbone has no such layer.
    """
    encoder = _encoder(model)
    if isinstance(encoder, SimpleCNN):
        return encoder.blocks
    assert isinstance(encoder, ImageEncoder)
    outputs: list[tuple[nn.Module, Any]] = []
    hooks = [
        module.register_forward_hook(lambda module, _, output: outputs.append((module, output)))
        for module in encoder.backbone.modules()
    ]
    blank = next(encoder.parameters()).new_zeros(1, 1, *encoder.input_size)
    try:
        with torch.no_grad(), evaluating(encoder):
            features = encoder.backbone.forward_features(blank)
    finally:
        for hook in hooks:
            hook.remove()
    if features.ndim == 3:
        blocks = getattr(encoder.backbone, "blocks", None)
        layer = getattr(blocks[-1], "norm1", None) if blocks is not None else None
    else:  # the outermost of those that return the very tensor
        layer = next((each for each, output in reversed(outputs) if output is features), None)
    if not isinstance(layer, nn.Module):
        raise ConfigError(
            f"The backbone {model.config['image_encoder'].get('backbone')} has no layer that a "
            "saliency map could be read from; explain a CNN, ConvNeXt, Swin or ViT."
        )
    return layer


def to_grid(model: FusionClassifier, output: Tensor, height: int) -> Tensor:
    """The output of `saliency_layer` as (B, C, h, w), without a transformer's prefix tokens.

    Args:
        model: The model.
        output: (B, C, h, w), (B, h, w, C) or (B, tokens, C), as the layer gave it.
        height: Of the images that went in, px.
    """
    encoder = _encoder(model)
    if output.ndim == 3:
        patches = output[:, encoder.backbone.num_prefix_tokens :].mT
        rows = height // encoder.backbone.patch_embed.patch_size[0]
        return patches.reshape(*patches.shape[:2], rows, -1)
    return output.permute(0, 3, 1, 2) if _is_nhwc(encoder) else output


def saliency_maps(
    model: FusionClassifier,
    image: Tensor,
    clinical: Tensor | None,
    present: Tensor,
    method: str = "gradcam",
) -> NDArray[np.float32]:
    """Where the radiographs speak for low BMD, the clinical rows held fixed: (n, h, w) in [0, 1].

    With A the output of `saliency_layer` and G the gradient of the log-odds of low BMD by it, the
    map is the ReLU of the sum over channels of A times the spatial mean of G (``gradcam``,
    Selvaraju et al., arXiv 1610.02391) or of A times G (``hirescam``, Draelos and Carin, arXiv
    2011.08891). Each map is then divided by its maximum; one without any positive value is zero.
    It has the layer's resolution and covers the square that the model saw.

    Two properties to read it by. Behind a spatial mean, as of most CNNs, G is the same everywhere,
    and both methods give one map. Behind a layer norm, which follows in all our fusions, a map sums
    to about zero before the ReLU: it tells where, not how much, and in a film of dense bone what
    lights up may be the rest of the film, which speaks less against low BMD.

    Args:
        model: The model; it runs in evaluation mode. One thread may explain it at a time.
        image: (n, 1, H, W) in [0, 1].
        clinical: (n, F) float64, NaN where missing; None for the image arm.
        present: (n, 2) bool; a row without its image has a map of zeros.
        method: ``gradcam`` or ``hirescam``.

    Raises:
        ConfigError: Unknown method, or `saliency_layer` refuses.
    """
    if method not in METHODS:
        raise ConfigError(
            f"Unknown saliency method {method!r}; the methods are {', '.join(METHODS)}."
        )
    # Here and not above: the definitions serve the export too, which needs no captum.
    from captum.attr import LayerGradCam, LayerGradientXActivation

    explained = _Explained(model)
    kind = LayerGradCam if method == "gradcam" else LayerGradientXActivation
    with evaluating(model):
        maps: Tensor = kind(explained, explained.grid).attribute(
            # A frozen encoder has no gradient of its own; this one is never read.
            image.detach().requires_grad_(),
            additional_forward_args=(clinical, present),
        )
    return normalised(maps.sum(dim=1)).detach().cpu().numpy()


def normalised(maps: Tensor) -> Tensor:
    """Maps (n, h, w) without negative values, each divided by its maximum; zeros stay zeros."""
    maps = maps.relu().float()
    peak = maps.amax(dim=(1, 2), keepdim=True)
    return maps / torch.where(peak > 0, peak, torch.ones_like(peak))


class _Explained(nn.Module):
    """Log-odds of low BMD, with the map that is explained as the output of ``grid``."""

    def __init__(self, model: FusionClassifier) -> None:
        super().__init__()
        self.model = model
        self.layer = saliency_layer(model)
        self.grid = nn.Identity()

    def forward(self, image: Tensor, clinical: Tensor | None, present: Tensor) -> Tensor:
        """Return (B,) of the inputs of the classifier."""

        def through(_: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            grid: Tensor = self.grid(to_grid(self.model, output, image.shape[2]))
            if output.ndim == 3:
                prefix = output[:, : output.shape[1] - grid.shape[2] * grid.shape[3]]
                return torch.cat([prefix, grid.flatten(2).mT], dim=1)
            return grid.permute(0, 2, 3, 1) if _is_nhwc(_encoder(self.model)) else grid

        with self.layer.register_forward_hook(through):
            return log_odds(self.model(image, clinical, present))


def _is_nhwc(encoder: StagedEncoder) -> bool:
    return getattr(getattr(encoder, "backbone", None), "output_fmt", "NCHW") == "NHWC"


def _encoder(model: FusionClassifier) -> Any:
    if model.image_encoder is None:
        raise ConfigError("The tabular arm reads no radiograph, so it has no saliency map.")
    return model.image_encoder
