"""Charts as inline SVG: each is a <figure> with its picture and, folded, the table of the same numbers.

Colours are classes of the stylesheet (`series-1` and so on). There are no style attributes, scripts or ids.
"""

from tf_simclr.report.charts.bars import Row, histograms, intervals
from tf_simclr.report.charts.confusion import matrix
from tf_simclr.report.charts.curves import Series, lines

__all__ = ["Row", "Series", "histograms", "intervals", "lines", "matrix"]
