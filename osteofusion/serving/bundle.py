"""A bundle on disk: read, and held to its hashes before anything is answered."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from osteofusion.data.radiograph import content_hash
from osteofusion.errors import RadiographError
from osteofusion.serving.description import DESCRIPTION_FILE, FORMAT, BundleDescription
from osteofusion.serving.errors import BundleError

MODEL = "model.onnx"
FUSION = "fusion.onnx"
SALIENCY = "saliency.onnx"
EMBEDDING = "embedding.npz"
CARD = "model_card.md"


@dataclass(frozen=True)
class Bundle:
    """A model ready to answer.

    Attributes:
        folder: Where it lies.
        description: What it says of itself.
    """

    folder: Path
    description: BundleDescription

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Bundle:
        """Read a bundle and check every file of it against its hash.

        Raises:
            BundleError: It is no bundle, of another format, or a file is missing or changed.
        """
        folder = Path(folder)
        path = folder / DESCRIPTION_FILE
        if not path.is_file():
            raise BundleError(
                f"{folder} is no bundle: it holds no {DESCRIPTION_FILE}; make one with "
                "`osteofusion export RUN OUT`."
            )
        bundle = cls(folder, _read(path))
        for name, digest in bundle.description.files.items():
            bundle.check(name, digest)
        needed = {MODEL} if bundle.description.arm != "fused" else {MODEL, FUSION}
        if missing := needed - bundle.description.files.keys():
            raise BundleError(f"{path} names no {min(missing)}; export the model again.")
        return bundle

    def path(self, name: str) -> Path | None:
        """One of its files; None where it has no such file."""
        return self.folder / name if name in self.description.files else None

    def check(self, name: str, digest: str) -> None:
        """Hold a file to its hash.

        Raises:
            BundleError: It lies outside the bundle, is missing, or is another.
        """
        path = self.folder / name
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise BundleError(f"{self.folder} names the file {name!r} outside it; export it again.")
        try:
            found = content_hash(path)
        except RadiographError:
            raise BundleError(
                f"{path} is missing or cannot be read; copy the whole bundle again."
            ) from None
        if found != digest:
            raise BundleError(
                f"{path} is not the file that {DESCRIPTION_FILE} names (its SHA-256 differs); "
                "copy the bundle again, or export the model again."
            )


def _read(path: Path) -> BundleDescription:
    again = "export the model again with this version of osteofusion"
    try:
        return BundleDescription.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        if where == "format":
            raise BundleError(
                f"{path} is of another format than {FORMAT}, which is the one read here; {again}."
            ) from None
        raise BundleError(
            f"{path} is damaged{': ' if where else ''}{where} ({first['msg']}); {again}."
        ) from None
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror}); check permissions.") from None
