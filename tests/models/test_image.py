from __future__ import annotations

import socket
import time

import pytest
import timm
import torch
from safetensors.torch import save_file

from osteofusion.errors import ConfigError
from osteofusion.models import ImageEncoder
from osteofusion.models.weights import offline_weights

SMALL = "resnet10t"


@pytest.fixture(scope="module")
def rgb_state():
    torch.manual_seed(1)
    return timm.create_model(SMALL).state_dict()


def test_offline_weights_are_the_published_network():
    """Every tensor lands where its name says: the gray stem and all others, checked by hand."""
    state = torch.load(offline_weights(), weights_only=True)
    encoder = ImageEncoder("tf_efficientnet_lite0", pretrained=True)
    loaded = encoder.backbone.state_dict()
    for ours, theirs in {
        "bn1.running_var": "_bn0.running_var",
        "blocks.0.0.conv_pw.weight": "_blocks.0._project_conv.weight",
        "blocks.1.1.conv_pw.weight": "_blocks.2._expand_conv.weight",
        "blocks.3.2.bn2.running_mean": "_blocks.7._bn1.running_mean",
        "blocks.6.0.conv_pwl.weight": "_blocks.15._project_conv.weight",
        "conv_head.weight": "_conv_head.weight",
        "bn2.bias": "_bn1.bias",
    }.items():
        assert torch.equal(loaded[ours], state[theirs])
    stem = state["_conv_stem.weight"].sum(dim=1, keepdim=True)
    torch.testing.assert_close(loaded["conv_stem.weight"], stem)


def test_offline_weights_recognise_a_photograph():
    """The mapping and the input scaling are right if the network still names what it sees."""
    from sklearn.datasets import load_sample_image

    photo = torch.from_numpy(load_sample_image("flower.jpg").copy()).float().mean(2) / 255
    photo = torch.nn.functional.interpolate(photo[None, None, :, 107:534], (224, 224), mode="area")
    encoder = ImageEncoder("tf_efficientnet_lite0", pretrained=True).eval()
    state = torch.load(offline_weights(), weights_only=True)
    with torch.no_grad():
        logits = encoder(photo) @ state["_fc.weight"].T + state["_fc.bias"]
    names = timm.data.ImageNetInfo()
    seen = [names.index_to_description(int(i)) for i in logits[0].topk(5).indices]
    assert "daisy" in seen


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("prefix", ["", "model.encoder."])
def test_local_file_gives_the_same_network_on_gray_images(tmp_path, rgb_state, suffix, prefix):
    path = tmp_path / f"weights{suffix}"
    state = {f"{prefix}{key}": value for key, value in rgb_state.items()}
    save_file(state, path) if suffix == ".safetensors" else torch.save({"state_dict": state}, path)
    encoder = ImageEncoder(SMALL, pretrained=str(path)).eval()
    reference = timm.create_model(SMALL, num_classes=0).eval()
    reference.load_state_dict(rgb_state, strict=False)
    image = torch.rand(2, 1, 64, 64)
    # With equal scaling in all channels, a summed stem equals a gray image shown in three channels.
    scaled = ((image - encoder.mean) / encoder.std).expand(-1, 3, -1, -1)
    with torch.no_grad():
        torch.testing.assert_close(encoder(image), reference(scaled), atol=1e-4, rtol=1e-4)


def test_file_of_another_network_is_refused_with_what_does_not_fit(tmp_path, rgb_state):
    path = tmp_path / "weights.pth"
    torch.save(rgb_state, path)
    with pytest.raises(ConfigError, match=r"not hold weights of timm's resnet14t: .* missing \(l"):
        ImageEncoder("resnet14t", pretrained=str(path))
    bigger = timm.create_model("resnet34").state_dict()  # all of resnet18's names and shapes
    torch.save(bigger, path)
    with pytest.raises(ConfigError, match=r"unexpected \(layer1\.2"):
        ImageEncoder("resnet18", pretrained=str(path))
    torch.save({**rgb_state, "bn1.weight": torch.ones(3)}, path)
    with pytest.raises(ConfigError, match=r"bn1\.weight \(3,\) instead of \(64,\)"):
        ImageEncoder(SMALL, pretrained=str(path))


@pytest.mark.parametrize("content", [b"", b"not weights", None])
@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_unreadable_file_is_refused(tmp_path, name, content):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=name):
        ImageEncoder(SMALL, pretrained=str(path))


def test_pickled_code_is_never_run(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": timm.create_model(SMALL)}, path)
    with pytest.raises(ConfigError, match="plain state dict"):
        ImageEncoder(SMALL, pretrained=str(path))


def test_unreachable_hub_fails_soon_and_names_the_ways_out(monkeypatch, tmp_path):
    with socket.socket() as silent:  # accepts connections and never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        start = time.monotonic()
        with pytest.raises(ConfigError, match=r"resnet18.*false.*safetensors.*lite0") as caught:
            ImageEncoder("resnet18", pretrained=True)
    assert endpoint in str(caught.value)
    assert time.monotonic() - start < 10


def test_offline_mode_asks_nobody(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="HF_HUB_OFFLINE is set"):
        ImageEncoder("densenet169", pretrained=True)


@pytest.mark.parametrize(
    ("name", "message"),
    [("resnet_18", "resnet18"), ("resnet18.nope", "tagged names: resnet18"), ("?", "list_models")],
)
def test_unknown_backbone_gets_close_matches(name, message):
    with pytest.raises(ConfigError, match=message):
        ImageEncoder(name)


def test_backbone_without_published_weights():
    with pytest.raises(ConfigError, match="no pretrained weights for efficientnetv2_s"):
        ImageEncoder("efficientnetv2_s", pretrained=True)


@pytest.mark.parametrize(
    ("backbone", "size"),
    [
        ("resnet10t", (64, 96)),
        ("mobilenetv3_small_050", (64, 64)),
        ("vit_tiny_patch16_224", (224, 224)),
        ("swin_tiny_patch4_window7_224", (224, 224)),
    ],
)
def test_vector_and_map_have_the_promised_shapes(backbone, size):
    encoder = ImageEncoder(backbone).eval()
    image = torch.rand(2, 1, *size)
    with torch.no_grad():
        assert encoder(image).shape == (2, encoder.num_features)
        feature_map = encoder.forward_map(image)
    stride = size[0] // feature_map.shape[2]
    assert feature_map.shape == (2, encoder.map_features, *(side // stride for side in size))


def test_map_keeps_rows_and_columns_of_a_transformer_apart():
    encoder = ImageEncoder("vit_tiny_patch16_224").eval()
    tokens = encoder.backbone.forward_features(torch.full((1, 1, 224, 224), 0.5) - encoder.mean)
    with torch.no_grad():
        feature_map = encoder.forward_map(torch.full((1, 1, 224, 224), 0.5))
    torch.testing.assert_close(feature_map[0, :, 3, 5], tokens[0, 1 + 3 * 14 + 5])


def test_memory_format_does_not_matter():
    encoder = ImageEncoder(SMALL).eval()
    image = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        expected = encoder(image)
        encoder.to(memory_format=torch.channels_last)
        actual = encoder(image.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)
