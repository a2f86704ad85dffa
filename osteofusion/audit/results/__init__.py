"""Audits of a result: leakage, shortcuts, subgroups, pairing, who gains, learning curve."""

from osteofusion.audit.results.assess import assess_results
from osteofusion.audit.results.figures import (
    draw_learning_curve,
    draw_pairing,
    draw_subgroups,
)

__all__ = ["assess_results", "draw_learning_curve", "draw_pairing", "draw_subgroups"]
