"""What a user of the command line is spared: Lightning's messages about its own inside."""

from __future__ import annotations

import io
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_NOISE = (
    ".*does not have many workers.*",
    ".*number of training batches.*logging interval.*",
    ".*overridden `on_after_batch_transfer`.*",
    ".*No (positive|negative) samples in targets.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*callbacks used to create the checkpoint need to be provided.*",
    ".*Grad strides do not match bucket view strides.*",
    r".*Found \d+ module\(s\) in eval mode.*",  # a frozen backbone
    ".*Using `DistributedSampler` with the dataloaders.*",  # copies are dropped
)


@contextmanager
def quiet() -> Iterator[None]:
    """Hide what a user of this command line can do nothing about; say the rest shortly."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if isinstance(sys.stdout, io.TextIOWrapper):  # not so in a notebook
        sys.stdout.reconfigure(line_buffering=True)
    usual = warnings.formatwarning
    with warnings.catch_warnings():
        for noise in _NOISE:
            warnings.filterwarnings("ignore", noise)
        for category in (FutureWarning, DeprecationWarning):
            warnings.filterwarnings("ignore", category=category)
        warnings.formatwarning = lambda message, *_, **__: f"osteofusion: warning: {message}\n"
        try:
            yield
        finally:
            warnings.formatwarning = usual
