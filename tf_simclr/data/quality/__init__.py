"""Finds broken and duplicate images, and surveys a source."""
