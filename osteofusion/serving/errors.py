"""What a bundle refuses: a folder that is none, and input that no answer may rest on."""

from __future__ import annotations

from osteofusion.errors import OsteofusionError


class BundleError(OsteofusionError):
    """A bundle is missing, damaged or of another format."""


class InputError(OsteofusionError):
    """What was given of a patient cannot be read.

    Args:
        field: The clinical value, or ``image``.
        reason: One sentence without anything of the patient but the field's name.
        code: ``unknown_value``, ``not_a_value``, ``not_a_number``, ``not_finite``,
            ``not_yes_or_no``, ``not_a_word``, ``too_long``, ``out_of_range``, ``suspected_unit``,
            ``no_modality``, ``unused_modality``, ``not_an_image``, ``empty``, ``damaged``,
            ``too_large``, ``several_frames``, ``no_spacing`` or ``unsupported_image``.
    """

    def __init__(self, field: str, reason: str, code: str) -> None:
        super().__init__(reason)
        self.field = field
        self.code = code
