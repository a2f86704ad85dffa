"""The configs and manifests that ship with the package."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def shipped_folder(kind: str) -> Path:
    """Folder of the shipped ``configs`` or ``manifests``: inside a wheel, or beside a checkout."""
    inside = _PACKAGE / kind
    return inside if inside.is_dir() else _PACKAGE.parent / kind


def shipped_names(kind: str) -> list[str]:
    """Names of all shipped YAML files of that kind, as a user types them.

    Of ``configs`` those of single runs; ``configs/studies`` is a kind of its own.
    """
    folder = shipped_folder(kind)
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*.yaml"))
    return sorted(name for name in names if not name.startswith("studies/"))


def find_shipped(kind: str, name: str) -> Path | None:
    """The shipped file of that name, with or without ``.yaml``; None when there is none."""
    folder = shipped_folder(kind)
    for candidate in (folder / name, folder / f"{name}.yaml"):
        if candidate.is_file() and folder in candidate.resolve().parents:
            return candidate
    return None
