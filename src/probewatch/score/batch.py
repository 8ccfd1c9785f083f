"""A log's sessions -> verdicts, at full speed and in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from probewatch.bundle import Bundle
from probewatch.data.features import anchor_width, compute
from probewatch.data.known import Known
from probewatch.data.profile import Profiles, with_profiles
from probewatch.data.ragged import Ragged
from probewatch.data.records import Sessions, ranges
from probewatch.data.state import State, new_state
from probewatch.errors import DataError
from probewatch.network import Network, prior_shift, shifted, summarise
from probewatch.score.explain import explain
from probewatch.score.verdicts import Verdicts


@dataclass(frozen=True)
class _Cut:
    """What a session that the next chunk goes on with leaves behind."""

    network_state: NDArray[np.float32]  # (1, K)
    verdict: Verdicts


class Scorer:
    """A bundle that scores; holds an ONNX Runtime session.

    >>> scorer = Scorer(read_bundle("bundle"))  # doctest: +SKIP
    >>> with read_logs(["queries.jsonl.gz"]) as log:  # doctest: +SKIP
    ...     for verdicts in scorer.score(log.sessions()):
    ...         print(verdicts.session[verdicts.alert])
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        threshold: float | None = None,
        allow: frozenset[str] = frozenset(),
        threads: int = 0,
        profiles: Profiles | None = None,
        prior: float | None = None,
    ) -> None:
        """A scorer of sessions.

        Args:
            bundle: a trained detector.
            threshold: alert at this score instead of the bundle's; a score as it is told, moved by ``prior``.
            allow: clients that never alert.
            threads: of ONNX Runtime; 0 for all.
            profiles: of the models that the owner knows, by name; never made of what is scored.
            prior: the share of attacks at which scores shall be probabilities, instead of the training's; the bundle's
                threshold moves with them, so that its alerts stay the same.

        Raises:
            ConfigError: ``prior`` is not above 0 and below 1.
        """
        self.profiles = profiles or {}
        self.allow = allow
        self.bundle = bundle
        self.scales = with_profiles(bundle.scales, self.profiles)
        self._known = Known(bundle.scales, self.profiles)
        self.network = Network(bundle.graph, bundle.features, threads=threads)
        self.prior = bundle.prior if prior is None else prior
        self._shift = 0.0 if prior is None else prior_shift(prior, bundle.prior)
        self.threshold = shifted(bundle.threshold, self._shift) if threshold is None else threshold
        self._decisive = bundle.threshold if threshold is None else shifted(threshold, -self._shift)

    def score(self, chunks: Iterable[Sessions], *, why: bool = True) -> Iterator[Verdicts]:
        """Verdicts on every session, a part at a time; a session cut between chunks is told once, whole.

        Args:
            chunks: as ``Log.sessions`` gives them.
            why: explain the alerts, which costs about as much as scoring them ten times.

        Raises:
            DataError: the log lacks what the bundle's features need.
        """
        state: State | None = None
        cut: _Cut | None = None
        for chunk in chunks:
            state = _roomy(state, anchor_width(chunk, self.bundle.features))
            rows = compute(chunk, self.bundle.features, self._known, state)
            verdicts, last = self._verdicts(chunk, rows, cut, why)
            cut = None if chunk.ends[-1] else _Cut(last, verdicts.at(slice(-1, None)))
            done = verdicts if chunk.ends[-1] else verdicts.at(slice(0, -1))
            if len(done):
                yield done

    def _verdicts(
        self, chunk: Sessions, rows: Ragged, cut: _Cut | None, why: bool
    ) -> tuple[Verdicts, NDArray[np.float32]]:
        check_masks(self.bundle, rows)
        if not self.bundle.manifest["streams"] and (chunk.before.any() or not chunk.ends.all()):
            raise DataError(
                "a session is longer than a chunk, and a bidirectional bundle must see it whole;"
                " train a bundle of one direction."
            )
        network_state = np.zeros((len(chunk), self.network.state_width), np.float32)
        if cut is not None:
            network_state[:1] = cut.network_state
        logits, after = self.network.run(rows, network_state)
        decision = self.bundle.manifest["decision"]
        score, last, first = summarise(logits, rows.offsets, self._decisive, decision, self._shift)
        first = np.where(first > 0, first + chunk.before, 0)
        allowed = np.array([client in self.allow for client in chunk.client], bool)
        first[allowed] = 0
        reasons = np.full(len(chunk), "", object)
        alerts = np.flatnonzero(first)
        if why and len(alerts):
            found = rows.take(alerts)
            own = logits[ranges(rows.offsets[alerts], found.lengths)]
            ends = found.lengths if decision == "last" else _peaks(own, found.offsets)
            usual = self.bundle.manifest["baseline"]
            reasons[alerts] = explain(
                self.network, self.bundle.features, usual, found, own, ends, before=chunk.before[alerts]
            )
        verdicts = Verdicts(
            chunk.session, chunk.client, chunk.model, rows.lengths + chunk.before,
            score, last, first > 0, first, allowed, reasons,
        )  # fmt: skip
        if cut is not None:
            verdicts = _joined(cut.verdict, verdicts, decision)
        return verdicts, after[-1:]


def check_masks(bundle: Bundle, rows: Ragged) -> None:
    """A bundle that never learned what a missing feature means must not be given one.

    Raises:
        DataError: it is given one.
    """
    if bundle.manifest["masks"]:
        return
    missing = np.flatnonzero(np.isnan(rows.values).any(axis=0))
    if len(missing):
        names = [bundle.features[column] for column in missing]
        raise DataError(
            f"the log lacks what the features {names} are made of, and this bundle was trained without gaps;"
            " train it with features that the log has (--features)."
        )


def _joined(before: Verdicts, after: Verdicts, decision: str) -> Verdicts:
    """``after`` with what earlier chunks showed of its first session."""
    first, why, score = after.first_alert.copy(), after.why.copy(), after.score.copy()
    if decision == "peak":
        if before.first_alert[0]:
            first[0] = before.first_alert[0]
        if before.score[0] >= score[0]:
            score[0], why[0] = before.score[0], before.why[0]
    return replace(after, score=score, first_alert=first, alert=first > 0, why=why)


def _peaks(logits: NDArray[np.float32], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """(S,) number of the query, from 1, with the highest logit of its session."""
    lengths = np.diff(offsets)
    highest = np.repeat(np.maximum.reduceat(logits, offsets[:-1]), lengths)
    places = np.arange(len(logits)) - np.repeat(offsets[:-1], lengths)
    return np.asarray(np.minimum.reduceat(np.where(logits == highest, places, len(logits)), offsets[:-1]) + 1)


def _roomy(state: State | None, width: int) -> State:
    """A state of one slot whose anchor holds ``width`` inputs."""
    if state is None:
        return new_state(1, width)
    if state.anchor.shape[1] >= width:
        return state
    return state._replace(anchor=np.pad(state.anchor, ((0, 0), (0, width - state.anchor.shape[1]))))
