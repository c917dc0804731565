"""Encoders, heads and the SimCLR model."""
