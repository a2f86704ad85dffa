from __future__ import annotations

import copy

import pytest
import torch

from osteofusion.models import (
    FUSIONS,
    CrossAttentionFusion,
    DAFTFusion,
    FiLMFusion,
    FusionClassifier,
    GatedFusion,
    LateFusion,
    ResidualLateFusion,
    auxiliary_loss,
    build_loss,
)

CNN = {"name": "cnn", "channels": [8, 16]}
VECTORS = (torch.randn(4, 6), torch.randn(4, 5))
MAP = torch.randn(4, 6, 3, 2)
BOTH = torch.ones(4, 2, dtype=torch.bool)


def absent(column):
    present = BOTH.clone()
    present[:, column] = False
    return present


@pytest.mark.parametrize("fusion", [FiLMFusion, DAFTFusion])
def test_affine_fusions_start_as_the_identity(fusion):
    module = fusion(6, 5, 8).eval()
    expected = module.reduce(MAP).relu().mean(dim=(2, 3))
    torch.testing.assert_close(module(MAP, VECTORS[1], BOTH), expected)


def test_affine_fusions_see_the_map_and_not_its_mean_alone():
    module = FiLMFusion(6, 5, 8).eval()
    flat = MAP.mean(dim=(2, 3), keepdim=True).expand_as(MAP)
    assert not torch.allclose(module(MAP, VECTORS[1], BOTH), module(flat, VECTORS[1], BOTH))


def test_cross_attention_starts_from_the_clinical_tokens():
    module = CrossAttentionFusion(6, 5, 8).eval()
    tokens = torch.randn(4, 3, 5)
    torch.testing.assert_close(module(MAP, tokens, BOTH), module(MAP * 7 - 1, tokens, BOTH))
    torch.nn.init.ones_(module.gate)
    assert not torch.allclose(module(MAP, tokens, BOTH), module(MAP * 7 - 1, tokens, BOTH))


def test_attention_does_not_care_where_patches_stand_in_memory():
    module = CrossAttentionFusion(6, 5, 8).eval()
    torch.nn.init.ones_(module.gate)
    tokens = torch.randn(4, 3, 5)
    torch.testing.assert_close(module(MAP, tokens, BOTH), module(MAP.flip(2), tokens, BOTH))


def test_gates_can_be_read():
    module = GatedFusion(6, 5, 8).eval()
    gates = module.gates(*VECTORS, BOTH)
    assert gates.shape == (4, 8)
    assert ((gates > 0) & (gates < 1)).all()
    with torch.no_grad():
        module.gate.bias.fill_(100.0)  # all image
    fused = module(*VECTORS, BOTH)
    torch.testing.assert_close(fused, module(VECTORS[0], VECTORS[1] * 3 + 1, BOTH))


def test_late_weights():
    fixed = LateFusion(6, 5, 3, image_weight=0.25).eval()
    image, clinical = fixed.image_head(VECTORS[0]), fixed.clinical_head(VECTORS[1])
    torch.testing.assert_close(fixed(*VECTORS, BOTH), 0.25 * image + 0.75 * clinical)
    torch.testing.assert_close(fixed(*VECTORS, absent(0)), clinical)
    torch.testing.assert_close(fixed(*VECTORS, absent(1)), image)
    assert not [n for n, _ in fixed.named_parameters() if "weight_logit" in n]
    learned = LateFusion(6, 5, 3)
    assert learned.clinical_weight(BOTH).detach().unique().tolist() == [0.5]
    assert learned.clinical_weight(absent(0)).unique().tolist() == [1.0]
    assert learned.clinical_weight(absent(1)).unique().tolist() == [0.0]


def test_residual_fusion_starts_as_the_fitted_clinical_arm(spec, batch):
    common = {"preprocessing": spec, "image_encoder": CNN, "head": "proportional_odds"}
    tabular = FusionClassifier(3, arm="tabular", **common).train()
    optimiser = torch.optim.Adam(tabular.parameters(), lr=0.05)
    for _ in range(5):
        optimiser.zero_grad()
        build_loss("cross_entropy")(tabular(clinical=batch[1]), torch.arange(8) % 3).backward()
        optimiser.step()
    fused = FusionClassifier(3, fusion={"name": "residual_late"}, **common)
    fused.load_clinical_arm(tabular)
    fused.eval()
    tabular.eval()
    torch.testing.assert_close(fused(*batch), tabular(clinical=batch[1]))
    with torch.no_grad():
        fused.fusion.shrinkage.fill_(0.5)
    present = batch[2].clone()
    present[:4, 0] = False
    corrected, plain = fused(*batch[:2], present), tabular(clinical=batch[1])
    torch.testing.assert_close(corrected[:4], plain[:4])
    assert not torch.allclose(corrected[4:], plain[4:])


def test_clinical_arm_that_does_not_fit_is_refused(spec):
    common = {"preprocessing": spec, "image_encoder": CNN}
    fused = FusionClassifier(3, fusion={"name": "residual_late"}, **common)
    with pytest.raises(ValueError, match="expected ResidualLateFusion"):
        FusionClassifier(3, **common).load_clinical_arm(fused)
    with pytest.raises(ValueError, match="arm is fused; expected tabular"):
        fused.load_clinical_arm(fused)
    other = FusionClassifier(2, arm="tabular", **common)
    with pytest.raises(ValueError, match="num_classes is 2; expected 3"):
        fused.load_clinical_arm(other)


def test_modality_dropout_withholds_in_training_only_and_never_everything(spec, batch):
    model = FusionClassifier(2, preprocessing=spec, image_encoder=CNN, modality_dropout=0.5)
    image, clinical, present = (torch.cat([x] * 40) for x in batch)
    present[:10, 0] = False
    seen = model.train().outputs(image, clinical, present).present
    assert seen.any(dim=1).all()
    assert not (seen & ~present).any()
    assert 0.2 < (seen[10:].sum(dim=1) == 1).float().mean() < 0.8
    assert torch.equal(model.eval().outputs(image, clinical, present).present, present)


def test_auxiliary_losses_count_present_rows_alone(spec, batch):
    model = FusionClassifier(2, preprocessing=spec, image_encoder=CNN, auxiliary=True).eval()
    image, clinical, present = batch
    present[:5, 0] = False
    criterion, target = build_loss("cross_entropy"), torch.arange(8) % 2
    outputs = model.outputs(image, clinical, present)
    torch.testing.assert_close(
        auxiliary_loss(outputs, target, criterion),
        criterion(outputs.image_logits[5:], target[5:])
        + criterion(outputs.clinical_logits, target),
    )
    present[:, 0] = False
    none_left = auxiliary_loss(model.outputs(image, clinical, present), target, criterion)
    torch.testing.assert_close(none_left, criterion(outputs.clinical_logits, target))
    plain = FusionClassifier(2, preprocessing=spec, image_encoder=CNN).outputs(*batch)
    with pytest.raises(ValueError, match="auxiliary=True"):
        auxiliary_loss(plain, target, criterion)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fusion": {"name": "gatd"}}, "'gatd'; expected one of .*mean 'gated'"),
        ({"fusion": {"name": "film", "depth": 2}}, "fusion 'film' .*'depth'"),
        ({"fusion": {"name": "late", "out_dim": 8}}, "'out_dim'"),
        ({"fusion": {"name": "late", "image_weight": 2.0}}, "image_weight is 2.0"),
        ({"fusion": {"name": "cross_attention", "out_dim": 6}}, "out_dim is 6.*heads"),
        ({"clinical_encoder": {"name": "tree"}}, "clinical encoder is 'tree'"),
        ({"clinical_encoder": {"in_features": 3}}, "in_features"),
        ({"image_encoder": {"name": "cnn", "backbone": "resnet18"}}, "'cnn' .*'backbone'"),
        ({"head": "probit"}, "head is 'probit'"),
        ({"head": "sigmoid"}, "num_classes is 3"),
        ({"modality_dropout": 1.0}, "modality_dropout is 1.0"),
    ],
)
def test_bad_settings_are_refused(spec, options, message):
    with pytest.raises(ValueError, match=message):
        FusionClassifier(3, **{"preprocessing": spec, "image_encoder": CNN, **options})


def test_missing_tensor_in_a_saved_folder_is_refused(spec, tmp_path):
    from safetensors.torch import load_file, save_file

    FusionClassifier(3, preprocessing=spec, image_encoder=CNN).save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    del state["skip.weight"]
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(RuntimeError, match=r"skip\.weight"):
        FusionClassifier.from_pretrained(tmp_path)


def test_fusions_can_be_copied_and_used_alone():
    for name, kind in FUSIONS.items():
        module = copy.deepcopy(kind(6, 5, 8)).eval()
        image = MAP if kind.image_input == "map" else VECTORS[0]
        clinical = torch.randn(4, 3, 5) if kind.clinical_input == "tokens" else VECTORS[1]
        assert module(image, clinical, BOTH).shape == (4, 8), name
        poisoned = module(torch.full_like(image, torch.nan), clinical, absent(0))
        assert torch.equal(poisoned, module(image, clinical, absent(0))), name


def test_residual_correction_is_shrunk():
    module = ResidualLateFusion(6, 5, 3).eval()
    plain = module(*VECTORS, absent(0))
    torch.testing.assert_close(module(*VECTORS, BOTH), plain)
    with torch.no_grad():
        module.shrinkage.fill_(50.0)  # tanh bounds the factor by one
    torch.testing.assert_close(module(*VECTORS, BOTH) - plain, module.correction(VECTORS[0]))
