"""Metrics are Prometheus text, in a file that is replaced or on a port of this host."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

import pytest

from probewatch.errors import ConfigError
from probewatch.serve.metrics import NAMES, Metrics, to_text

SAMPLE = dict.fromkeys(NAMES, 1.5)


def test_every_family_is_described_once_before_its_samples() -> None:
    lines = to_text(SAMPLE).splitlines()
    kinds = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(kinds) == len(set(kinds))
    seen = set()
    for line in lines:
        if line.startswith("# TYPE"):
            seen.add(line.split()[2])
        elif not line.startswith("#"):
            assert line.split("{")[0].split()[0] in seen
    assert 'probewatch_evictions_total{reason="idle"} 1.5' in lines


def test_only_the_reason_of_an_eviction_is_a_label() -> None:
    labels = {part for _, name, _ in NAMES.values() if "{" in name for part in [name.split("{")[1]]}
    assert labels == {'reason="idle"}', 'reason="crowded"}'}


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "probewatch.prom"
    metrics = Metrics(str(path))
    metrics.show({"events": 3})
    metrics.show({"events": 4})
    metrics.close()
    assert "probewatch_events_total 4\n" in path.read_text()
    assert list(tmp_path.iterdir()) == [path]


def test_a_port_answers_on_this_host_with_metrics_and_nothing_else() -> None:
    metrics = Metrics("0")
    metrics.show({"events": 3})
    root = f"http://127.0.0.1:{metrics.port}"
    with urllib.request.urlopen(f"{root}/metrics") as answer:
        assert b"probewatch_events_total 3" in answer.read()
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    with pytest.raises(urllib.error.HTTPError, match="404") as caught:
        urllib.request.urlopen(f"{root}/alerts")
    caught.value.close()
    with pytest.raises(ConfigError, match="the port cannot be used"):
        Metrics(str(metrics.port))
    metrics.close()
