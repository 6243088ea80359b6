"""What a run or a comparison found, as pictures and as one page that opens offline."""

from mtljax.report.predictions import Predictions
from mtljax.report.run import write_report

__all__ = ["Predictions", "write_report"]
