"""Labelled logs to learn and test on."""
