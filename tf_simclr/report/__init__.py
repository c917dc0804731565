"""Writes the report of a run: one HTML file, made from the run's folder alone."""

from tf_simclr.report.write import FILE, write_report

__all__ = ["FILE", "write_report"]
