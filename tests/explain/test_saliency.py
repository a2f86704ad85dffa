"""Saliency maps: what they are by definition, and that they point where the evidence is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from spot_films import spots

from osteofusion.errors import ConfigError
from osteofusion.explain.saliency import METHODS, saliency_layer, saliency_maps, to_grid
from osteofusion.models import FusionClassifier

# Of each layout: (B, C, h, w), (B, h, w, C) and tokens.
BACKBONES = (
    "cnn",
    "test_resnet",
    "test_convnext",
    "test_efficientnet",
    "test_mambaout",
    "test_vit",
)


def _inputs(model, clinical, n=4):
    side = getattr(model.image_encoder, "input_size", (32, 48))
    image = torch.rand(n, 1, *side, generator=torch.Generator().manual_seed(1))
    return image, clinical[:n], torch.ones(n, 2, dtype=torch.bool)


def _by_hand(model, image, clinical, present, method):
    """The definition, with autograd alone."""
    kept = []
    with saliency_layer(model).register_forward_hook(lambda *a: kept.append(a[2])):
        logits = model(image.requires_grad_(), clinical, present)
    score = logits[:, 1:].exp().sum(1).log() - logits[:, 0]
    (gradient,) = torch.autograd.grad(score.sum(), kept)
    values, gradient = (to_grid(model, x, image.shape[2]).detach() for x in (kept[0], gradient))
    if method == "gradcam":
        gradient = gradient.mean(dim=(2, 3), keepdim=True)
    raw = (values * gradient).sum(1).clamp(min=0).numpy()
    peak = raw.max(axis=(1, 2), keepdims=True)
    return np.divide(raw, peak, out=np.zeros_like(raw), where=peak > 0)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("fusion", ["gated", "film"])
def test_maps_follow_their_definition(build, clinical, backbone, fusion):
    model = build(backbone, fusion)
    inputs = _inputs(model, clinical)
    for method in METHODS:
        maps = saliency_maps(model, *inputs, method)
        assert maps.dtype == np.float32
        assert maps.shape == (4, *model.image_encoder.forward_map(inputs[0]).shape[2:])
        assert maps.min() >= 0
        assert set(maps.max(axis=(1, 2)).tolist()) <= {0.0, 1.0}
        assert maps.max() == 1
        np.testing.assert_allclose(maps, _by_hand(model, *inputs, method), atol=2e-5)


def test_the_methods_differ_where_the_map_is_modulated_and_agree_where_it_is_averaged(
    build, clinical
):
    def apart(fusion):
        model = build("cnn", fusion)
        one, other = (saliency_maps(model, *_inputs(model, clinical), m) for m in METHODS)
        return np.abs(one - other).max()

    assert apart("gated") < 1e-5
    assert apart("cross_attention") > 0.01


@pytest.mark.parametrize("method", METHODS)
def test_maps_peak_at_the_spot_that_the_network_has_learnt(spotter, method):
    image, places = spots(40, seed=2)
    with torch.no_grad():
        assert (spotter(image).argmax(1) == torch.tensor([1, 0] * 20)).float().mean() > 0.9
    maps = saliency_maps(spotter, image, None, torch.ones(40, 2, dtype=torch.bool), method)[::2]
    rows, columns = np.unravel_index(maps.reshape(20, -1).argmax(1), maps.shape[1:])
    cell = 48 / maps.shape[1]
    found = np.stack([columns, rows], axis=1) * cell + (cell - 1) / 2
    near = np.abs(found - places[::2]).max(axis=1) <= 4 + cell / 2
    assert near.mean() >= 0.9


def test_the_clinical_row_shapes_the_map_and_rows_do_not_mix(build, clinical):
    model = build("cnn", "film")
    image, rows, present = _inputs(model, clinical)
    together = saliency_maps(model, image, rows, present)
    alone = [
        saliency_maps(model, image[i : i + 1], rows[i : i + 1], present[i : i + 1])
        for i in range(4)
    ]
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-5)
    other = saliency_maps(model, image, rows.flip(0), present)
    assert np.abs(together - other).max() > 1e-3


def test_a_row_without_its_image_has_a_map_of_zeros(build, clinical):
    model = build("cnn", "film")
    image, rows, present = _inputs(model, clinical)
    image[1] = torch.nan
    present[1, 0] = False
    for method in METHODS:
        maps = saliency_maps(model, image, rows, present, method)
        assert maps[1].max() == 0
        assert maps[[0, 2, 3]].max() == 1


def test_explaining_changes_nothing_and_works_on_a_frozen_encoder(build, clinical):
    model = build("test_resnet").train()
    model.image_encoder.freeze()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    image, rows, present = _inputs(model, clinical)
    assert saliency_maps(model, image, rows, present).max() == 1
    assert model.training
    assert not image.requires_grad
    assert all(p.grad is None for p in model.parameters())
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0, equal_nan=True)
    assert not any(module._forward_hooks for module in model.modules())


def test_tokens_of_an_oblong_image_become_its_grid(build):
    model = build("test_vit")
    encoder = model.image_encoder.backbone
    patch, prefix = encoder.patch_embed.patch_size[0], encoder.num_prefix_tokens
    grid = torch.arange(15.0).reshape(1, 1, 3, 5)
    tokens = torch.cat([torch.full((1, prefix, 1), -1.0), grid.flatten(2).mT], dim=1)
    assert torch.equal(to_grid(model, tokens, 3 * patch), grid)


def test_what_cannot_be_mapped_is_refused_in_one_sentence(build, clinical):
    model = build()
    with pytest.raises(ConfigError, match="'scorecam'; the methods are gradcam, hirescam"):
        saliency_maps(model, *_inputs(model, clinical), "scorecam")
    tabular = FusionClassifier(2, "tabular", preprocessing=model.config["preprocessing"])
    with pytest.raises(ConfigError, match="tabular arm reads no radiograph"):
        saliency_layer(tabular)
