"""What must be known of a command line before its parser can be built."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from osteofusion.data.manifest import Manifest
from osteofusion.data.unite import unite
from osteofusion.errors import ConfigError
from osteofusion.resources import find_shipped, shipped_names


@dataclass
class KnownOptions:
    """Options that decide what the other options mean.

    Attributes:
        ckpt_path: As given.
        base: Folder of all runs, as given.
        sources: `manifest` and `root` of the data, where given; lists for several data sets.
    """

    ckpt_path: str | None = None
    base: str | None = None
    sources: dict[str, Any] = field(default_factory=dict)


def known_options(arguments: Sequence[str]) -> KnownOptions:
    """Read the options from the command line and from its configs, of which the last one counts.

    Raises:
        ConfigError: an option lacks its value, or a config is no YAML.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("-c", "--config", action="append", default=[])
    flags = ("ckpt_path", "trainer.default_root_dir", "data.manifest", "data.root")
    for flag in flags:
        parser.add_argument(f"--{flag}")
    try:
        given = vars(parser.parse_known_args(list(arguments[1:]))[0])
    except argparse.ArgumentError as error:
        raise ConfigError(f"{error}.") from None
    for path in reversed(given["config"]):
        content = read_config(Path(path))
        for flag in flags:
            if given[flag] is None:
                given[flag] = _look_up(content, flag)
    found = {flag: None if given[flag] in ("null", "") else given[flag] for flag in flags}
    sources = {name: _value(found[f"data.{name}"]) for name in ("manifest", "root")}
    return KnownOptions(
        ckpt_path=found["ckpt_path"],
        base=found["trainer.default_root_dir"],
        sources={name: value for name, value in sources.items() if value is not None},
    )


def find_configs(arguments: Sequence[str]) -> tuple[list[str], str]:
    """Replace names of shipped configs by their paths; the stem of the last is the run's name.

    Raises:
        ConfigError: a config is neither a file nor shipped.
    """
    found = list(arguments)
    name = "default"
    for i, argument in enumerate(found):
        flag, equals, value = argument.partition("=")
        if flag not in ("-c", "--config"):
            continue
        position = i if equals else i + 1
        text = value if equals else (found[position] if position < len(found) else "")
        path = Path(text)
        if not path.is_file():
            shipped = find_shipped("configs", text) if text else None
            if shipped is None:
                names = shipped_names("configs")
                close = difflib.get_close_matches(text, names, n=1)
                hint = f" Did you mean {close[0]}?" if close else ""
                raise ConfigError(
                    f"--config {text or 'without a name'} is neither a file nor one of ours "
                    f"({', '.join(names)}).{hint}"
                )
            path = shipped
        found[position] = f"{flag}={path}" if equals else str(path)
        name = path.stem
        if name == "config" and path.resolve().parent.name.startswith("version_"):
            name = path.resolve().parent.parent.name  # a run's own config.yaml
    return found, name


def parser_sentence(message: str) -> str:
    """One sentence out of the lines in which jsonargparse reports a wrong option."""
    key = re.search(r'[Kk]ey "([^"]+)"', message)
    value = re.search(r"(?:Given|Got) value: (.+)", message)
    reasons = re.findall(r"^ *- (.+)", message, re.MULTILINE) or re.findall(
        r"Expected .*?(?=\. Got)", message
    )
    if not reasons:
        return " ".join(message.split()).rstrip(".") + "."
    # A null is always possible where a value is, so it explains nothing.
    reasons = [reason.rstrip(".") for reason in reasons if "NoneType" not in reason]
    why = re.sub(r"Expected a <class '(\w+)'>", r"expected \1", " or ".join(reasons))
    why = re.sub(r"Expected a typing\.Literal\[(.*?)\]", r"expected one of \1", why)
    if key is None or value is None:
        return f"{why}."
    return f"{key.group(1)}={value.group(1).rstrip('.')} is not possible: {why}."


def possible_arm(
    asked: str, manifests: Sequence[Manifest], features: Sequence[str] | None
) -> tuple[str, str]:
    """The arm that the data allow, and a sentence where it is not the one asked for.

    Raises:
        ConfigError: nothing is possible.
    """
    if not manifests:
        raise ConfigError("data.manifest is an empty list; name a data set, or several.")
    names = ", ".join(manifest.name for manifest in manifests)
    has_images = any(manifest.images is not None for manifest in manifests)
    has_clinical = features != [] and bool(unite(manifests).features)  # the region may be one
    if asked == "fused" and has_images != has_clinical:
        arm, lacks = ("image", "clinical columns") if has_images else ("tabular", "images")
        return arm, f"{names} has no {lacks}, so the {arm} arm is trained alone."
    if (asked == "tabular" and not has_clinical) or (asked == "image" and not has_images):
        lacks = "clinical columns" if asked == "tabular" else "images"
        raise ConfigError(f"model.arm={asked} is not possible: {names} has no {lacks}.")
    return asked, ""


def _value(text: Any) -> Any:
    """A value as the parser will read it: a list where it is written as one."""
    if isinstance(text, str) and text.startswith("["):
        with suppress(yaml.YAMLError):
            return yaml.safe_load(text)
    return text


def _look_up(content: dict[str, Any], flag: str) -> Any:
    section, _, name = flag.rpartition(".")
    inner = content.get(section) if section else content
    return inner.get(name) if isinstance(inner, dict) else None


def read_config(path: Path) -> dict[str, Any]:
    """Content of a config.

    Raises:
        ConfigError: it is no YAML.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" near line {where.line + 1}" if where is not None else ""
        raise ConfigError(f"Config {path} is not valid YAML{line}; mend it there.") from None
    if not isinstance(content, dict):
        raise ConfigError(f"Config {path} holds no `key: value` lines.")
    return content
