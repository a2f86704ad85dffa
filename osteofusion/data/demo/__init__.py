"""Synthetic cohorts in the Mendeley layout: drawn radiographs and a workbook, from one latent.

Nothing here is a patient. A latent bone density follows clinical risk factors in published
directions, and an image-visible view of it (with noise of its own) sets the cortical thickness and
the trabecular texture of a drawn knee or spine; so each modality carries signal that the other
lacks.
"""

from osteofusion.data.demo.cohort import REGIONS, write_demo
from osteofusion.data.demo.table import STAMP

__all__ = ["REGIONS", "STAMP", "write_demo"]
