"""How fast features are computed, against the same features in NumPy, a row at a time.

    python bench/features.py [--sessions 80] [--events 100] [--inputs 30] [--rounds 5]

Both sides compute all features of the default preset for the same sessions, on one core, and their values must agree
to 1e-4, absolute or relative. The compiled side is also timed over a hundred times as many queries, and from a cold
start: a process that compiles, and one that finds the compiled code in its cache.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from generate import make_sessions
from rows import compute_by_row

from probewatch.data.columns import DEFAULT
from probewatch.data.features import compute
from probewatch.data.known import Known
from probewatch.data.records import Sessions
from probewatch.data.scales import learn_scales

FIRST_CALL = (
    "import sys, time; sys.path.insert(0, sys.argv[1]); from generate import make_sessions;"
    "from probewatch.data.columns import DEFAULT; from probewatch.data.features import compute;"
    "from probewatch.data.known import Known; sessions = make_sessions(1, 10); start = time.perf_counter();"
    "compute(sessions, DEFAULT, Known()); print(time.perf_counter() - start)"
)


def timed(call: Callable[[], Any]) -> float:
    """Seconds that one call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def first_call_s(cache: str) -> float:
    """Seconds that the first call takes in a process of its own, with its compiled code kept in ``cache``."""
    command = [sys.executable, "-c", FIRST_CALL, str(Path(__file__).parent)]
    done = subprocess.run(command, env={**os.environ, "NUMBA_CACHE_DIR": cache}, capture_output=True, check=True)
    return float(done.stdout)


def repeated(sessions: Sessions, times: int) -> Sessions:
    return sessions.take(np.tile(np.arange(len(sessions)), times))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sessions", type=int, default=80)
    parser.add_argument("--events", type=int, default=100, help="queries of a session, about")
    parser.add_argument("--inputs", type=int, default=30, help="width of an input vector")
    parser.add_argument("--rounds", type=int, default=5, help="how often each side runs; medians are shown")
    options = parser.parse_args()

    sessions = make_sessions(options.sessions, options.events, inputs=options.inputs)
    many = repeated(sessions, 100)
    scales = learn_scales(sessions)
    ours = compute(sessions, DEFAULT, Known(scales)).values  # warms up
    rows = compute_by_row(sessions, DEFAULT, scales)
    np.testing.assert_allclose(ours, rows, rtol=1e-4, atol=1e-4, err_msg="the sides compute different values")

    seconds: dict[str, list[float]] = {"rows": [], "ours": [], "many": []}
    for _ in range(options.rounds):
        seconds["rows"].append(timed(lambda: compute_by_row(sessions, DEFAULT, scales)))
        seconds["ours"].append(timed(lambda: compute(sessions, DEFAULT, Known(scales))))
        seconds["many"].append(timed(lambda: compute(many, DEFAULT, Known(scales))))
    with tempfile.TemporaryDirectory() as cache:
        cold, warm = first_call_s(cache), first_call_s(cache)

    events = len(sessions.time_s)
    print(f"{events} queries of {options.inputs} inputs, {len(DEFAULT)} features, one core")
    print(f"{'':32}{'seconds':>9}{'events/s':>12}")
    for name, key, count in (
        ("NumPy, row by row", "rows", events),
        ("compiled", "ours", events),
        ("compiled, 100 times as many", "many", 100 * events),
    ):
        median = float(np.median(seconds[key]))
        print(f"{name:32}{median:9.3f}{count / median:12,.0f}")
    print(f"{'first call, compiling':32}{cold:9.2f}")
    print(f"{'first call, code in the cache':32}{warm:9.2f}")
    print(f"ratio: {np.median(np.array(seconds['rows'])) / np.median(np.array(seconds['ours'])):.1f}")


if __name__ == "__main__":
    main()
