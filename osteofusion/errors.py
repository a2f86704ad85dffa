"""Errors that a user can mend. The command line prints their message and exits with status 2."""

from __future__ import annotations


class OsteofusionError(Exception):
    """Base of all errors a user can cause; the message is one sentence that says what to do."""


class ManifestError(OsteofusionError):
    """A manifest is missing, malformed or contradicts itself."""


class CohortError(OsteofusionError):
    """Images and table cannot be joined into a cohort."""


class RadiographError(OsteofusionError):
    """An image file cannot be read as a radiograph."""


class SplitError(OsteofusionError):
    """A cohort cannot be split as asked, or a splits file does not fit the cohort."""


class ConfigError(OsteofusionError):
    """A setting is unknown, contradictory, or would be ignored."""


class EvaluationError(OsteofusionError):
    """Predictions cannot be evaluated."""
