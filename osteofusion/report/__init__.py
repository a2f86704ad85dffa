"""One page, PDF and model card of a run or a study; no torch."""

from osteofusion.report.read import Material, ReportError, read_material
from osteofusion.report.write import write_report

__all__ = ["Material", "ReportError", "read_material", "write_report"]
