"""Image encoders: every timm backbone, and a small plain network, for one-channel radiographs."""

from __future__ import annotations

import copy
import difflib
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import timm
import torch
from timm.layers.drop import DropPath
from timm.models import group_parameters
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from osteofusion.errors import ConfigError
from osteofusion.models.weights import (
    OFFLINE_BACKBONE,
    WAYS_OUT,
    load_weights,
    offline_weights,
    require_hub_weights,
)


class StagedEncoder(nn.Module, ABC):
    """Base of image encoders: a pooled vector, a feature map, and stages that can be frozen.

    Shape:
        - ``forward``: (B, 1, H, W), float in [0, 1] -> (B, ``num_features``)
        - ``forward_map``: (B, 1, H, W) -> (B, ``map_features``, h, w)
    """

    num_features: int
    map_features: int
    input_size: tuple[int, int] = (64, 64)

    def __init__(self) -> None:
        super().__init__()
        self._idle: frozenset[str] = frozenset()

    @abstractmethod
    def forward(self, image: Tensor) -> Tensor:
        """Return pooled features (B, ``num_features``)."""

    @abstractmethod
    def forward_map(self, image: Tensor) -> Tensor:
        """Return the last feature map (B, ``map_features``, h, w)."""

    @abstractmethod
    def stages(self) -> list[list[nn.Parameter]]:
        """Return the parameters of each stage, from input to output."""

    def freeze(self, stages: int | None = None) -> None:
        """Freeze the first ``stages`` stages (all if None) and train the others.

        Batch norm of frozen stages stays in evaluation mode, whatever `train` is called with. An
        encoder that was frozen as a whole comes back in training mode.

        Raises:
            ValueError: There are fewer stages.
        """
        groups = self.stages()
        count = len(groups) if stages is None else stages
        if not 0 <= count <= len(groups):
            raise ValueError(f"stages is {stages}; expected 0 to {len(groups)}")
        thawing = not any(p.requires_grad for p in self.parameters())
        idle = {id(p) for name, p in self.named_parameters() if name in self._idle}
        for number, group in enumerate(groups):
            for parameter in group:
                parameter.requires_grad_(number >= count and id(parameter) not in idle)
        self.train(self.training or thawing)

    def unfreeze(self) -> None:
        """Train every stage."""
        self.freeze(0)

    def use_map_only(self) -> None:
        """Exclude from training what only the pooled vector needs.

        Distributed training waits for a gradient of every trainable parameter.
        """
        shadow = copy.deepcopy(self).to("meta")  # shapes alone, so this costs next to nothing
        shadow.forward_map(torch.empty(2, 1, *self.input_size, device="meta")).sum().backward()  # type: ignore[no-untyped-call]
        self._idle = frozenset(n for n, p in shadow.named_parameters() if p.grad is None)
        self.unfreeze()

    def train(self, mode: bool = True) -> StagedEncoder:
        """Set the mode; a frozen encoder, or frozen batch norm, stays in evaluation mode."""
        frozen = not any(p.requires_grad for p in self.parameters())
        super().train(mode and not frozen)
        for module in self.modules():
            if isinstance(module, _BatchNorm) and not any(
                p.requires_grad for p in module.parameters()
            ):
                module.eval()
        return self


class ImageEncoder(StagedEncoder):
    """A timm backbone that turns radiographs into feature vectors or maps.

    The backbone's own input normalisation happens inside, so callers pass plain intensities.
    Three-channel means and deviations are averaged, as timm sums the stem's three channels.

    Args:
        backbone: A timm model name, with or without a weights tag (``resnet50.a1_in1k``).
        pretrained: True for the published weights, False for random ones, or a weights file. For
            ``tf_efficientnet_lite0`` True needs no network.
        drop_path: Probability of skipping a residual branch in training.
        gradient_checkpointing: Recompute activations in the backward pass to save memory.

    Shape:
        As in `StagedEncoder`.

    Raises:
        ConfigError: Unknown backbone (close matches are named), weights that cannot be had, or
            drop path or checkpointing where the backbone has none.
    """

    backbone: Any  # timm's classes share attributes, but no typed base
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: str = OFFLINE_BACKBONE,
        pretrained: bool | str | os.PathLike[str] = False,
        drop_path: float = 0.0,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = _create(backbone, pretrained, drop_path)
        if gradient_checkpointing:
            try:
                self.backbone.set_grad_checkpointing(True)
            except (AssertionError, AttributeError) as error:
                raise ConfigError(
                    f"{backbone} does not support gradient checkpointing; "
                    "set gradient_checkpointing to false or choose another backbone."
                ) from error
        self.num_features = self.backbone.head_hidden_size
        self.map_features = self.backbone.num_features
        cfg = self.backbone.pretrained_cfg
        self.input_size = cfg["input_size"][1:]
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(cfg[name], dtype=torch.float64).mean().float())

    def forward(self, image: Tensor) -> Tensor:
        """Return pooled features of (B, 1, H, W) images as (B, ``num_features``)."""
        features: Tensor = self.backbone(self._normalise(image))
        return features

    def forward_map(self, image: Tensor) -> Tensor:
        """Return the last feature map of (B, 1, H, W) images as (B, ``map_features``, h, w)."""
        features: Tensor = self.backbone.forward_features(self._normalise(image))
        if features.ndim == 3:  # a transformer's tokens, class token first
            patches = features[:, self.backbone.num_prefix_tokens :]
            rows = image.shape[2] // self.backbone.patch_embed.patch_size[0]
            return patches.mT.reshape(*patches.mT.shape[:2], rows, -1)
        if getattr(self.backbone, "output_fmt", "NCHW") == "NHWC":
            return features.permute(0, 3, 1, 2)
        return features

    def stages(self) -> list[list[nn.Parameter]]:
        """Return the parameters of each of timm's stages, stem first."""
        named = dict(self.backbone.named_parameters())
        groups = group_parameters(self.backbone, self.backbone.group_matcher(coarse=True))
        return [[named[name] for name in names] for _, names in sorted(groups.items())]

    def _normalise(self, image: Tensor) -> Tensor:
        return (image - self.mean) / self.std


class SimpleCNN(StagedEncoder):
    """A plain network: convolution, batch norm, ReLU and max-pool per block; dropout; dense layer.

    Args:
        channels: Output channels of each block; the image side shrinks by half in each.
        num_features: Width of the dense layer.
        dropout: Probability of dropping a unit before the dense layer in training.

    Shape:
        As in `StagedEncoder`.
    """

    def __init__(
        self,
        channels: Sequence[int] = (32, 64, 128, 256),
        num_features: int = 128,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.map_features = channels[-1]
        blocks = []
        for inputs, outputs in zip((1, *channels), channels, strict=False):
            convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
            blocks.append(
                nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2))
            )
        self.blocks = nn.Sequential(*blocks)
        self.dense = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(channels[-1], num_features), nn.ReLU()
        )

    def forward(self, image: Tensor) -> Tensor:
        """Return pooled features of (B, 1, H, W) images as (B, ``num_features``)."""
        features: Tensor = self.dense(self.forward_map(image).mean(dim=(2, 3)))
        return features

    def forward_map(self, image: Tensor) -> Tensor:
        """Return the last feature map of (B, 1, H, W) images as (B, ``map_features``, h, w)."""
        features: Tensor = self.blocks(image - 0.5)
        return features

    def stages(self) -> list[list[nn.Parameter]]:
        """Return the parameters of each block, then those of the dense layer."""
        return [list(part.parameters()) for part in (*self.blocks, self.dense)]


IMAGE_ENCODERS: dict[str, type[StagedEncoder]] = {"timm": ImageEncoder, "cnn": SimpleCNN}


def encode_present(
    encoder: StagedEncoder, image: Tensor, here: Tensor, *, as_map: bool = False
) -> Tensor:
    """Encode the rows of ``image`` that ``here`` (B,) marks; the other rows have no meaning.

    In training the encoder sees present images only, so that absent ones do not reach batch norm.
    """
    # `where`, not a product: NaN times zero is NaN.
    image = torch.where(here[:, None, None, None], image, torch.zeros_like(image))
    encode = encoder.forward_map if as_map else encoder.forward
    if not encoder.training:
        return encode(image)
    rows = here.nonzero().squeeze(1)
    if len(rows) == 0:
        # Distributed training waits for a gradient of every parameter, be it zero.
        encoder.eval()
        nothing = encode(image[:1]) * 0
        encoder.train()
        return nothing.expand(len(here), *nothing.shape[1:])
    encoded = encode(image[rows])
    return encoded.new_zeros(len(here), *encoded.shape[1:]).index_copy(0, rows, encoded)


def _create(name: str, pretrained: bool | str | os.PathLike[str], drop_path: float) -> nn.Module:
    if not 0 <= drop_path < 1:
        raise ConfigError(f"drop_path is {drop_path}; it must be a share in [0, 1).")
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=5, cutoff=0.5)
        hint = f"close matches: {', '.join(close)}" if close else "see timm.list_models()"
        raise ConfigError(f"Unknown backbone {name!r}; {hint}.")
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        tags = ", ".join(timm.list_pretrained(f"{name.partition('.')[0]}.*")) or "none"
        raise ConfigError(f"Unknown weights tag in {name!r}; tagged names: {tags}.") from error
    source = pretrained
    if source is True and name == OFFLINE_BACKBONE:
        source = offline_weights()
    if source is True:
        require_hub_weights(name)
    options: dict[str, Any] = {"drop_path_rate": drop_path} if drop_path else {}
    try:
        model: nn.Module = timm.create_model(
            name, pretrained=source is True, in_chans=1, num_classes=0, **options
        )
    except Exception as error:
        if "drop_path_rate" in str(error):
            raise ConfigError(
                f"{name} does not support drop path; set drop_path to 0 or choose another backbone."
            ) from error
        if source is not True:
            raise ConfigError(f"timm cannot build the backbone {name!r}: {error}") from error
        raise ConfigError(
            f"The pretrained weights of {name} could not be loaded ({error}): {WAYS_OUT}."
        ) from error
    if drop_path and not any(isinstance(module, DropPath) for module in model.modules()):
        raise ConfigError(
            f"{name} ignores drop path; set drop_path to 0 or choose another backbone."
        )
    if not isinstance(source, bool):
        load_weights(model, source)
    return model
