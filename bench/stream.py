"""How fast events are scored as they come, against rescoring a session's last 150 events at every event.

    python bench/stream.py [--bundle DIR] [--clients 10000 100000 1000000] [--rounds 7] [--config TOML]

Without a bundle, one of the default preset's shape is trained for one epoch on generated sessions: its scores mean
little, its cost is that of the shipped preset. Clients ask in random order, 30 inputs a query, in micro-batches of
1,024 columns that are ready in memory; features, graph, sessions, repeats, incidents and peaks are included, JSON
decoding is not; once more with profiles of 100,000 training records a model. The other side scores, for each
micro-batch, every event's session of 150 events anew with the batch path, all 1,024 of them in one call. Medians of
rounds; both sides must give the same score.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import resource
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pyarrow as pa
from generate import make_sessions
from numpy.typing import NDArray

from probewatch.bundle import Bundle, read_bundle
from probewatch.data.events import Events
from probewatch.data.profile import Profile, Profiles, Records, build_profile
from probewatch.data.records import Sessions
from probewatch.score.batch import Scorer
from probewatch.score.limits import Limits
from probewatch.score.stream import MICRO_BATCH, StreamScorer

INPUTS = 30
WINDOW = 150  # events that the other side scores anew
BATCHES = 64  # different micro-batches of a round
RECORDS = 100_000  # training records of each model, where there are profiles
CHECKED = 16  # sessions whose scores are compared
FIRST_SCORE = (
    "import sys; from probewatch import StreamScorer; watch = StreamScorer.open(sys.argv[1]);"
    "watch.push({'client': ['a'], 'time_s': [1.0], 'confidence': [0.5], 'inputs': [[0.0] * 30]})"
)


def train(folder: Path, config: Path | None) -> Bundle:
    """A bundle of the default preset's shape, after one epoch."""
    from probewatch.learn.budget import read_settings
    from probewatch.learn.detector import train_detector
    from probewatch.learn.labelled import Labelled
    from probewatch.learn.presets import PRESETS

    sessions = make_sessions(400, 30, inputs=INPUTS)
    label = (np.arange(400) // 2 % 2).astype(np.int8)
    preset = read_settings(config, PRESETS["default"])[0] if config else PRESETS["default"]
    preset = dataclasses.replace(preset, epochs=1)
    labelled = Labelled(sessions, label, np.full(400, "", object), np.zeros(400, bool), "")
    return train_detector(labelled, preset, folder, rivals=False)[0]


class Traffic:
    """Micro-batches of ``clients`` clients in random order, time going on from one to the next."""

    def __init__(self, clients: int, models: list[str], seed: int = 0) -> None:
        self._random = np.random.default_rng(seed)
        self._names = pa.array([f"client-{number:07d}" for number in range(clients)])
        self._models = pa.array(models)
        self._time_s = 1.77e9
        source = make_sessions(64, 100, inputs=INPUTS, seed=seed)
        full = np.diff(source.input_offsets) == INPUTS
        self._vectors = source.inputs.reshape(-1, INPUTS)
        self._confidence, self._class = source.confidence[full], source.predicted_class[full]
        self.clients = clients

    def batch(self, clients: NDArray[np.int64]) -> Events:
        """One micro-batch in which these clients ask."""
        count = len(clients)
        which = self._random.integers(0, len(self._vectors), count)
        self._time_s += 0.01
        return Events.of(
            self._names.take(pa.array(clients)), self._time_s + np.arange(count) * 1e-6,
            model=self._models.take(pa.array(clients % len(self._models))), confidence=self._confidence[which],
            predicted_class=self._class[which], inputs=self._vectors[which],
        )  # fmt: skip

    def random_batches(self, count: int) -> list[Events]:
        return [self.batch(self._random.integers(0, self.clients, MICRO_BATCH)) for _ in range(count)]

    def everyone(self) -> list[Events]:
        """Micro-batches in which each client asks once."""
        order = self._random.permutation(self.clients)
        return [self.batch(order[at : at + MICRO_BATCH]) for at in range(0, self.clients, MICRO_BATCH)]


def resident_bytes() -> int:
    """Memory of this process that is in use."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def state_bytes(bundle: Bundle, clients: int = 40_000, first: int = 5_000, rounds: int = 34) -> tuple[int, int]:
    """Bytes a session whose window is full: what memory grew by from some to all, and what the arrays add up to.

    To be asked in a process of its own, in which no memory was freed before.
    """
    traffic = Traffic(clients, list(bundle.scales))
    watch = StreamScorer(bundle, threshold=1.0, limits=Limits(max_sessions=clients))
    used = []
    for some in (np.arange(first), np.arange(first, clients)):
        for _ in range(rounds):
            for at in range(0, len(some), MICRO_BATCH):
                watch.push(traffic.batch(some[at : at + MICRO_BATCH]))
        used.append(resident_bytes())
    return (used[1] - used[0]) // (clients - first), watch.held.state_bytes


def profiles_of(bundle: Bundle) -> dict[str, Profile]:
    """A profile of each model, of random records."""
    random = np.random.default_rng(0)

    def records(count: int) -> Records:
        return Records(random.normal(size=(count, INPUTS)), random.uniform(size=count))

    return {model: build_profile(records(RECORDS), records(1000), bytes(16), model) for model in bundle.scales}


def rate_of(bundle: Bundle, clients: int, rounds: int, profiles: Profiles | None = None) -> float:
    """Median events a second."""
    traffic = Traffic(clients, list(bundle.scales))
    limits = Limits(max_sessions=max(clients, 1 << 13))
    watch = StreamScorer(bundle, threshold=1.0, limits=limits, profiles=profiles)
    for events in traffic.everyone():
        watch.push(events)
    rates = []
    for _ in range(rounds):
        batches = traffic.random_batches(BATCHES)
        started = time.perf_counter()
        for events in batches:
            watch.push(events)
        rates.append(BATCHES * MICRO_BATCH / (time.perf_counter() - started))
    return float(np.median(rates))


def rescoring_rate(bundle: Bundle, rounds: int) -> float:
    """Median events a second of the other side."""
    sessions = windows(bundle)
    scorer = Scorer(bundle, threshold=1.0)
    seconds = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        list(scorer.score([sessions], why=False))
        seconds.append(time.perf_counter() - started)
    check(bundle, sessions)
    return len(sessions) / float(np.median(seconds[1:]))


def windows(bundle: Bundle) -> Sessions:
    """MICRO_BATCH sessions of WINDOW events."""
    many = make_sessions(MICRO_BATCH // 8, 2 * WINDOW + 2, inputs=INPUTS)
    models = np.array(list(bundle.scales), object)
    cut = many.take(many.lengths >= WINDOW)
    cut = cut.take(np.arange(MICRO_BATCH) % len(cut))
    keep = np.concatenate([np.arange(start, start + WINDOW) for start in cut.offsets[:-1]])
    widths = np.diff(cut.input_offsets)[keep]
    inputs = np.concatenate([cut.inputs[cut.input_offsets[at] : cut.input_offsets[at + 1]] for at in keep])
    return dataclasses.replace(
        cut, model=models[np.arange(len(cut)) % len(models)], offsets=np.arange(len(cut) + 1) * WINDOW,
        session=np.array([str(number) for number in range(len(cut))], object), time_s=cut.time_s[keep],
        confidence=cut.confidence[keep], predicted_class=cut.predicted_class[keep], inputs=inputs,
        input_offsets=np.concatenate([[0], np.cumsum(widths)]),
    )  # fmt: skip


def check(bundle: Bundle, sessions: Sessions) -> None:
    """Both sides must give the same last score."""
    some = sessions.take(np.arange(CHECKED))
    own = np.repeat(np.arange(CHECKED), WINDOW)
    vectors = np.split(some.inputs, some.input_offsets[1:-1])
    events = Events.of(
        some.session[own], some.time_s, model=some.model[own], session=some.session[own], confidence=some.confidence,
        predicted_class=some.predicted_class, inputs=vectors,
    )  # fmt: skip
    order = np.arange(len(own)).reshape(CHECKED, WINDOW).T.reshape(-1)
    scores = StreamScorer(bundle, limits=Limits(idle_s=1e9)).push(events.take(order))  # sessions of different days
    (verdicts,) = Scorer(bundle).score([some], why=False)
    np.testing.assert_allclose(scores.score[-CHECKED:], verdicts.last_score, rtol=0, atol=1e-5)


def latency_ms(bundle: Bundle, profiles: Profiles | None = None) -> tuple[float, float]:
    """Median and 99th percentile of one event pushed alone."""
    traffic = Traffic(10_000, list(bundle.scales))
    watch = StreamScorer(bundle, threshold=1.0, profiles=profiles)
    for events in traffic.everyone():
        watch.push(events)
    times = []
    for events in [traffic.batch(np.array([number % 10_000])) for number in range(0, 30_000, 13)]:
        started = time.perf_counter()
        watch.push(events)
        times.append(1e3 * (time.perf_counter() - started))
    return float(np.median(times[100:])), float(np.quantile(times[100:], 0.99))


def first_score_s(bundle: Path, cache: str) -> float:
    """Seconds from the start of a process to its first score, with its compiled code kept in ``cache``."""
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", FIRST_SCORE, str(bundle)], env={**os.environ, "NUMBA_CACHE_DIR": cache}, check=True
    )
    return time.perf_counter() - started


def installed_mib() -> float:
    """Size of the package and all that its core needs."""
    left, seen, size = ["probewatch"], set(), 0
    while left:
        name = left.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue
        for file in found.files or []:
            path = Path(str(found.locate_file(file)))
            size += path.stat().st_size if path.is_file() else 0
        for need in found.requires or []:
            if "extra ==" not in need:
                left.append("".join(c if c.isalnum() or c in "-_." else " " for c in need).split()[0].lower())
    return size / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--config", type=Path, help="settings that replace the default preset's")
    parser.add_argument("--clients", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--state-of", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.state_of:
        print(*state_bytes(read_bundle(options.state_of)))
        return
    with tempfile.TemporaryDirectory() as folder:
        bundle = read_bundle(options.bundle) if options.bundle else train(Path(folder) / "bundle", options.config)
        print(f"{bundle.manifest['network']}, {len(bundle.features)} features, {INPUTS} inputs, {os.cpu_count()} cores")
        rescored = rescoring_rate(bundle, max(options.rounds // 2, 1))
        rates = {}
        for clients in options.clients:
            rates[clients] = rate_of(bundle, clients, options.rounds)
            print(f"{f'{clients:,} clients':34}{rates[clients]:9,.0f} events/s")
        profiles = profiles_of(bundle)
        profiled = rate_of(bundle, min(options.clients[-1], 100_000), options.rounds, profiles)
        print(f"{f'the same, {RECORDS:,} records known':34}{profiled:9,.0f} events/s")
        command = [sys.executable, __file__, "--state-of", str(bundle.folder)]
        grown, arrays = map(int, subprocess.run(command, capture_output=True, check=True).stdout.split())
        print(f"{'state of a session (its arrays)':34}{grown:9,} bytes ({arrays:,})")
        middle, slow = latency_ms(bundle)
        known_middle, known_slow = latency_ms(bundle, profiles)
        with tempfile.TemporaryDirectory() as cache:
            cold = first_score_s(bundle.folder, cache)
            warm = min(first_score_s(bundle.folder, cache) for _ in range(3))
    print(f"{'rescoring the last 150 events':34}{rescored:9,.0f} events/s")
    print(f"{'most clients against fewest':34}{rates[max(rates)] / rates[min(rates)]:9.2f}")
    print(f"{'one event, median (99 %)':34}{middle:9.2f} ms ({slow:.2f})")
    print(f"{'the same, records known':34}{known_middle:9.2f} ms ({known_slow:.2f})")
    print(f"{'start to first score, cold (warm)':34}{cold:9.1f} s ({warm:.1f})")
    print(f"{'installed without extras':34}{installed_mib():9.0f} MiB")
    main_rate = rates[100_000] if 100_000 in rates else rates[max(rates)]
    print(f"ratio: {main_rate / rescored:.1f}")


if __name__ == "__main__":
    main()
