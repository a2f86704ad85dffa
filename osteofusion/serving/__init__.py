"""From checkpoint to clinic: a folder that predicts without the machine that trained it."""

import os

# ONNX Runtime 1.29 and later calls home and leaves a file behind unless this is set before its
# first import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
