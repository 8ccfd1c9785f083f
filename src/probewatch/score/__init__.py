"""From a bundle and a log to scores. Needs no torch."""
