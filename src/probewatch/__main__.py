"""``python -m probewatch`` is the command line."""

from probewatch.serve.cli import app

app()
