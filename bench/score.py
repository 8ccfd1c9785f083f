"""How fast sequences are scored, against the article's forward pass.

    python bench/score.py [--sequences 2000] [--rounds 5]

Both sides score the same sequences of 50 to 150 steps of three features with the same LSTM of 64 units: the article
in batches of 16 that are scaled, padded to 150, sorted and packed; ours as ``probewatch score`` does, which scales in
the graph and gives the score after every step. The last steps' logits must agree to 1e-5. The ratio is against torch
with its default number of threads, as the article runs it; one thread is shown too, since torch's threads wait long
for each other where another program holds a core: the ratio means something on a quiet machine only.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from article import STEPS, ArticleNetwork, loader_of
from generate import make_sequences
from numpy.typing import NDArray

from probewatch.data.ragged import Ragged
from probewatch.learn.dataset import Scaler
from probewatch.learn.graph import build_graph
from probewatch.learn.model import LSTMClassifier
from probewatch.network import Network

FEATURES = ["first", "second", "third"]
BATCH = 16


def score_by_article(network: ArticleNetwork, scaler: Scaler, sequences: Ragged) -> NDArray[np.float32]:
    """(S,) logits."""
    loader = loader_of(scaler.transform(sequences), np.zeros(len(sequences), np.int8), BATCH, shuffle=False)
    with torch.no_grad():
        return torch.cat([network(events, lengths) for events, _, lengths in loader]).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sequences", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5, help="how often each side runs; medians are shown")
    options = parser.parse_args()

    sequences = make_sequences(options.sequences, 50, STEPS)[0]
    scaler = Scaler.fit(sequences)
    torch.manual_seed(0)
    model = LSTMClassifier(len(FEATURES)).eval()
    article = ArticleNetwork(len(FEATURES)).eval()
    article.load_state_dict(model.state_dict())
    network = Network(build_graph([model], scaler, FEATURES), FEATURES)
    default = torch.get_num_threads()

    seconds: dict[str, list[float]] = {}
    for warm in (False, *[True] * options.rounds):
        for threads in sorted({1, default}, reverse=True):
            torch.set_num_threads(threads)
            started = time.perf_counter()
            theirs = score_by_article(article, scaler, sequences)
            if warm:
                seconds.setdefault(name_of(threads), []).append(time.perf_counter() - started)
        started = time.perf_counter()
        ours, _ = network.run(sequences)
        if warm:
            seconds.setdefault("ours", []).append(time.perf_counter() - started)
        np.testing.assert_allclose(ours[sequences.offsets[1:] - 1], theirs, rtol=0, atol=1e-5)

    medians = {name: float(np.median(found)) for name, found in seconds.items()}
    events = len(sequences.values)
    print(f"{len(sequences)} sequences, {events} steps of {len(FEATURES)} features, LSTM of 64")
    print(f"{'':40}{'seconds':>9}{'events/s':>12}{'ratio':>8}")
    for name, median in medians.items():
        print(f"{name:40}{median:9.3f}{events / median:12,.0f}{median / medians['ours']:8.1f}")
    print(f"ratio: {medians[name_of(default)] / medians['ours']:.1f}")


def name_of(threads: int) -> str:
    return f"the article, torch threads: {threads}"


if __name__ == "__main__":
    main()
