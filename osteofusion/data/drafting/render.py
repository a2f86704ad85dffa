"""A drafted manifest as YAML that a person can read and edit."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from osteofusion.data.drafting.words import printable

WIDTH = 100
_SECTIONS = ("images", "table", "label", "columns")
Comments = Mapping[tuple[str, ...], Iterable[str]]


def render(content: Mapping[str, Any], comments: Comments, proposals: Comments) -> str:
    """YAML text of a manifest.

    Args:
        content: Keys and values, in order.
        comments: Sentences to stand above a key, by the path to the key; () is the top.
        proposals: Lines that only need their # deleted, below the section of that path.
    """
    lines = _notes(comments.get((), ()), "")
    for key, value in content.items():
        if key in _SECTIONS:
            lines.append("")
        lines += _notes(comments.get((key,), ()), "")
        if not isinstance(value, dict) or key not in _SECTIONS:
            lines.append(f"{key}: {_inline(value)}")
            continue
        lines.append(f"{key}:" if value else f"{key}: {{}}")
        for name, item in value.items():
            lines += _notes(comments.get((key, name), ()), "  ")
            lines += _entry(name, item)
        lines += [f"  # {line}" for line in proposals.get((key,), ())]
    return "\n".join(lines) + "\n"


def _notes(sentences: Iterable[str], indent: str) -> list[str]:
    """Comment lines; whatever a file put into a sentence cannot end the comment."""
    text = "; ".join(printable(sentence) for sentence in sentences)
    start = f"{indent}# "
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=start,
        subsequent_indent=start,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _entry(name: str, item: object) -> list[str]:
    line = f"  {_inline(name)}: {_inline(item)}"
    if len(line) <= WIDTH or not isinstance(item, dict):
        return [line]
    block = [f"  {_inline(name)}:"]
    for key, value in item.items():
        line = f"    {_inline(key)}: {_inline(value)}"
        if len(line) > WIDTH and isinstance(value, dict):
            block.append(f"    {_inline(key)}:")
            block += [f"      {_inline(word)}: {_inline(each)}" for word, each in value.items()]
        else:
            block.append(line)
    return block


def _inline(value: object) -> str:
    """One line of YAML; the dumper quotes whatever would be read as something else."""
    text = yaml.dump(
        value,
        Dumper=_Dumper,
        default_flow_style=True,
        sort_keys=False,
        allow_unicode=True,
        width=10**9,
    )
    text = text.removesuffix("\n").removesuffix("...").removesuffix("\n")
    return f"{{ {text[1:-1]} }}" if isinstance(value, dict) and value else text


class _Dumper(yaml.SafeDumper):
    """Quotes text over several lines, so that all of it stays on one."""


def _quoted(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _quoted)
