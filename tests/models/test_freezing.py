"""Freezing by stage, drop path and checkpointing; and every named backbone at its real size."""

from __future__ import annotations

import pytest
import torch

from osteofusion.errors import ConfigError
from osteofusion.models import FusionClassifier, ImageEncoder, SimpleCNN, build_loss

ENCODERS = {
    "timm": lambda: ImageEncoder("resnet10t"),
    "cnn": lambda: SimpleCNN(channels=(4, 8, 8), num_features=6),
    "lite0": lambda: ImageEncoder("tf_efficientnet_lite0"),
}


def states(encoder):
    return {k: v.clone() for k, v in encoder.state_dict().items()}


def step(encoder):
    image = torch.rand(4, 1, 64, 64)
    optimiser = torch.optim.SGD(encoder.parameters(), lr=0.1)
    encoder(image).square().sum().backward()
    optimiser.step()


@pytest.mark.parametrize("name", ENCODERS)
def test_stages_hold_every_parameter_once(name):
    encoder = ENCODERS[name]()
    staged = [id(p) for stage in encoder.stages() for p in stage]
    assert sorted(staged) == sorted(id(p) for p in encoder.parameters())
    assert len(encoder.stages()) > 2


@pytest.mark.parametrize("name", ENCODERS)
def test_frozen_encoder_does_not_change_in_training(name):
    encoder = ENCODERS[name]()
    encoder.freeze()
    before = states(encoder)
    encoder.train()
    image = torch.rand(4, 1, 64, 64)
    assert torch.equal(encoder(image), encoder(image))  # no dropout either
    assert all(torch.equal(before[k], v) for k, v in encoder.state_dict().items())
    encoder.unfreeze()  # nobody needs to call `train` again, as Lightning does not in mid-fit
    step(encoder)
    changed = {k for k, v in encoder.state_dict().items() if not torch.equal(before[k], v)}
    assert any("running_mean" in key for key in changed)


@pytest.mark.parametrize("name", ENCODERS)
def test_first_stages_stay_and_the_others_learn(name):
    encoder = ENCODERS[name]()
    encoder.train()
    encoder.freeze(2)
    frozen = {id(p) for stage in encoder.stages()[:2] for p in stage}
    assert {id(p) for p in encoder.parameters() if not p.requires_grad} == frozen
    before = states(encoder)
    step(encoder)
    for key, parameter in encoder.named_parameters():
        if id(parameter) in frozen:
            assert torch.equal(parameter, before[key])
            means = key.replace("weight", "running_mean").replace("bias", "running_mean")
            if means in before:
                assert torch.equal(encoder.state_dict()[means], before[means])
    last = {id(p) for p in encoder.stages()[-1]}
    learned = [
        not torch.equal(p, before[k]) for k, p in encoder.named_parameters() if id(p) in last
    ]
    assert any(learned)


def test_too_many_stages():
    with pytest.raises(ValueError, match="stages is 9; expected 0 to 4"):
        SimpleCNN(channels=(4, 8, 8)).freeze(9)


def test_what_a_map_does_not_use_is_left_out_of_training():
    encoder = SimpleCNN(channels=(4, 8))
    encoder.use_map_only()
    encoder.freeze()
    encoder.unfreeze()
    idle = {n for n, p in encoder.named_parameters() if not p.requires_grad}
    assert idle == {"dense.1.weight", "dense.1.bias"}
    vgg_like = ImageEncoder("mobilenetv3_small_050")
    vgg_like.use_map_only()
    vgg_like.forward_map(torch.rand(2, 1, 64, 64)).sum().backward()
    assert {n for n, p in vgg_like.named_parameters() if not p.requires_grad} == {
        n for n, p in vgg_like.named_parameters() if p.grad is None
    }


def test_drop_path_acts_in_training_only():
    encoder = ImageEncoder("tf_efficientnet_lite0", drop_path=0.9)
    for module in encoder.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    image = torch.rand(4, 1, 64, 64)
    encoder.eval()
    assert torch.equal(encoder(image), encoder(image))
    encoder.train()
    assert not torch.equal(encoder(image), encoder(image))


def test_checkpointing_gives_the_same_gradients():
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        encoder = ImageEncoder("resnet10t", gradient_checkpointing=checkpointing).train()
        encoder(torch.rand(4, 1, 64, 64)).sum().backward()
        gradients.append([p.grad for p in encoder.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


@pytest.mark.parametrize("backbone", ["densenet121", "vgg16"])
def test_backbones_without_drop_path_say_so(backbone):
    with pytest.raises(ConfigError, match=f"{backbone} .* drop path"):
        ImageEncoder(backbone, drop_path=0.1)


def test_backbones_without_checkpointing_say_so():
    with pytest.raises(ConfigError, match="inception_v3 does not support gradient checkpointing"):
        ImageEncoder("inception_v3", gradient_checkpointing=True)


@pytest.mark.slow
@pytest.mark.parametrize("fusion", ["concat", "film"])
@pytest.mark.parametrize(
    ("backbone", "side", "width"),
    [
        ("densenet121", 224, 1024),
        ("densenet169", 224, 1664),
        ("resnet50", 224, 2048),
        ("vgg16", 224, 4096),
        ("vgg19", 224, 4096),
        ("convnext_tiny", 224, 768),
        ("inception_v3", 299, 2048),
        ("legacy_xception", 299, 2048),
        ("efficientnet_b0", 224, 1280),
        ("tf_efficientnetv2_s", 300, 1280),
        ("tf_efficientnet_lite0", 224, 1280),
    ],
)
def test_named_architectures_train_at_their_real_size(spec, batch, backbone, side, width, fusion):
    model = FusionClassifier(
        2, preprocessing=spec, image_encoder={"backbone": backbone}, fusion={"name": fusion}
    ).train()
    assert model.image_encoder.num_features == width
    image = torch.rand(2, 1, side, side)
    logits = model(image, batch[1][:2], batch[2][:2])
    build_loss("cross_entropy")(logits, torch.tensor([0, 1])).backward()
    learned = [p for p in model.image_encoder.parameters() if p.requires_grad]
    assert logits.shape == (2, 2)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in learned)


@pytest.mark.parametrize("share", [-0.1, 1.0, 7])
def test_drop_path_is_a_share(share):
    with pytest.raises(ConfigError, match="drop_path"):
        ImageEncoder("resnet10t", drop_path=share)
