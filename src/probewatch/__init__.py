"""Probewatch reads the query log of a prediction API and says which clients probe it for training data."""

__version__ = "0.1.0"
