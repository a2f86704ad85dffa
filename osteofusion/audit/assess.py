"""Run all checks on a collection of images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import pandas as pd

from osteofusion.audit.copies import find_copies
from osteofusion.audit.drift import DriftTest, compare_sides, find_drift, tell_apart
from osteofusion.audit.features import FeatureReadings, read_features
from osteofusion.audit.file_facts import GROUPS, FileFacts, read_file_facts
from osteofusion.audit.findings import AuditReport, Copy, Finding, LabelReading
from osteofusion.audit.predictability import Reading, Target, holm
from osteofusion.audit.shared_films import copy_findings, describe_copies, subject_finding
from osteofusion.audit.sources import Collection
from osteofusion.audit.verdicts import (
    drift_findings,
    feature_finding,
    reading_findings,
    unreadable_finding,
)
from osteofusion.data.checks import LEAK_AUROC
from osteofusion.data.splits import connected_groups
from osteofusion.errors import CohortError
from osteofusion.evaluation.metrics import Ints
