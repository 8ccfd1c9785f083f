"""The FEATURES table: every feature by name, what it needs from the log, and what it says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from probewatch.errors import ConfigError

WINDOW = 32  # earlier queries that a new one is compared with
PRINTS = 64  # inputs whose change from one query to the next is watched
HALF_LIVES = (4, 32, 256)  # in queries
NEAR = 0.25  # a neighbour is nearer than this share of the usual distance between two queries
FLOOR = 1e-3  # added to a distance or gap before its logarithm
AFIELD = 0.05  # a query is on new ground if no more of the strangers' records lie nearer to one of 32 others
CANDIDATES = 0.4  # share of training records among an attacker's candidates, for the evidence
CUSTOMERS = 0.1  # the same among a customer's records, on top of chance coincidence
ODDS_FLOOR = 1e-5  # added to a probability before its log-odds: logs round to 4 to 6 digits


class Feature(NamedTuple):
    """One column: what it says, and what it needs (``group``): a column of the log, or knowledge of the model.

    ``scale`` is the usual queries of the model, ``profile`` the answers of the attacked model to records that
    its owner has, ``members`` the hashes of its training records, ``model`` whether training had queries of it.
    """

    group: str
    text: str


SIGNALS = {  # followed over time: name -> what it says
    "confidence": Feature("confidence", "log-odds of the confidence"),
    "rank": Feature("scale", "share of this model's usual confidences that are not higher"),
    "gap": Feature("time", "logarithm of the gap to the previous query"),
    "nearest": Feature("inputs", "logarithm of the distance to the nearest recent query"),
    "previous": Feature("inputs", "logarithm of the distance to the previous query"),
    "changed": Feature("inputs", "share of inputs changed since the previous query"),
    "repeat": Feature("inputs", "exact repeat of a recent query"),
    "class_change": Feature("class", "predicted class other than the previous one"),
    "jump": Feature("inputs", "jump of confidence against the nearest recent query"),
    "centre": Feature("inputs", "distance from the centre of the usual queries"),
    "ratio": Feature("profile", "log-likelihood of the confidence among training records against strangers"),
    "nearness": Feature("profile", "share of strangers that lie nearer to 32 others than this query to recent ones"),
    "around": Feature("members", "distance of made-up queries to the last training record touched"),
    "touch": Feature("members", "the query is a training record (running)"),
}
SPREADS = (
    "confidence",
    "rank",
    "gap",
    "nearest",
    "previous",
    "changed",
    "centre",
    "ratio",
)  # signals whose running spread is followed too

FAMILIAR = "familiar"

FEATURES: dict[str, Feature] = {
    "response_confidence": Feature("confidence", "confidence of the predicted class"),
    "time_delta_since_last_query": Feature("time", "seconds since the previous query"),
    "distance_from_anchor_vector": Feature("inputs", "distance from the most confident query so far"),
    "log_odds": Feature("confidence", "log-odds of the confidence"),
    "confidence_rank": Feature("scale", "share of this model's usual confidences that are not higher"),
    "log_gap": Feature("time", "logarithm of the seconds since the previous query"),
    "nearest_distance": Feature("inputs", "distance to the nearest of the last 32 queries"),
    "previous_distance": Feature("inputs", "distance to the previous query"),
    "anchor_distance": Feature("inputs", "distance from the most confident query so far, in usual distances"),
    "changed_share": Feature("inputs", "share of inputs changed since the previous query"),
    "repeat": Feature("inputs", "exact repeat of one of the last 32 queries"),
    "class_change": Feature("class", "predicted class other than the previous one"),
    "confidence_change": Feature("confidence", "change of confidence since the previous query"),
    "nearest_confidence_change": Feature("inputs", "change of confidence against the nearest recent query"),
    "nearest_class_change": Feature("inputs", "predicted class other than that of the nearest recent query"),
    "neighbours": Feature("inputs", "how many of the last 32 queries lie near this one"),
    "centre_distance": Feature("inputs", "distance from the centre of the usual queries"),
    "constant_change": Feature("scale", "share of inputs varied that never vary on this model"),
    "events": Feature("time", "number of queries so far"),
    "elapsed": Feature("time", "time since the first query"),
    "highest_confidence": Feature("confidence", "highest confidence so far"),
    "lowest_confidence": Feature("confidence", "lowest confidence so far"),
    "lowest_nearest": Feature("inputs", "smallest distance between two queries so far"),
    "farthest": Feature("inputs", "longest distance from the centre of the usual queries so far"),
    "member_ratio": Feature(
        "profile", "log-likelihood of the confidence among answers for training records against those for strangers"
    ),
    "nearest_rank": Feature("profile", "share of strangers' records that lie nearer to one of 32 others"),
    "centre_rank": Feature("profile", "share of strangers' records that lie nearer to the centre"),
    "on_record": Feature("members", "the query is a training record"),
    "near_record": Feature("members", "the query is, or lies near a recent one that is, a training record"),
    "record_distance": Feature("members", "logarithm of the distance to the last training record touched"),
    "records_touched": Feature("members", "different training records among the queries so far"),
    "records_share": Feature("members", "share of different queries so far that are training records"),
    "anchors": Feature("profile", "queries on new ground, as far from recent ones as strangers' records are"),
    "answer_evidence": Feature(
        "profile", "evidence of answers on new ground for a mixture with training records, summed while above zero"
    ),
    "anchor_share": Feature("members", "share of the queries on new ground that are training records"),
    "record_evidence": Feature(
        "members", "evidence of queries on new ground for a choice of training records, summed while above zero"
    ),
    "records_excess": Feature(
        "members", "training records touched beyond those that strangers' records would be by chance, in deviations"
    ),
    **{
        f"{name}_mean_{life}": Feature(group, f"{text}, mean over about {life} queries")
        for name, (group, text) in SIGNALS.items()
        for life in HALF_LIVES
    },
    **{
        f"{name}_spread_{life}": Feature(SIGNALS[name].group, f"{SIGNALS[name].text}, spread over about {life} queries")
        for name in SPREADS
        for life in HALF_LIVES
    },
    FAMILIAR: Feature("model", "training saw this model"),
}
ARTICLE = tuple(FEATURES)[:3]
DEFAULT = tuple(FEATURES)[3:]


THEMES = {  # what a detector should not hang on alone: theme -> the beginnings of its features' names
    "pacing": ("log_gap", "time_delta", "elapsed", "gap_", "events"),
    "confidence": ("response_confidence", "log_odds", "confidence_mean", "confidence_spread", "highest", "lowest_conf"),
    "jumps": ("confidence_change", "nearest_confidence", "jump"),
    "rank": ("confidence_rank", "rank_"),
    "nearness": ("nearest_distance", "nearest_mean", "nearest_spread", "lowest_nearest", "neighbours"),
    "rarity": ("nearest_rank", "nearness"),
    "steps": ("previous", "anchor_distance", "distance_from_anchor"),
    "changes": ("changed",),
    "repeats": ("repeat",),
    "classes": ("class_", "nearest_class"),
    "place": ("centre", "farthest", "constant"),
    "likelihood": ("member_ratio", "ratio_", "answer_evidence"),
    "evidence": ("anchors", "anchor_share", "record_evidence"),
    "records": ("on_record", "near_record", "records_", "record_distance", "around_", "touch_"),
    "familiarity": (FAMILIAR,),
}
EVIDENCE = ("evidence", "records")
"""The themes of what a query has to do with training records, which is the same on every model."""
RISING = (
    "on_record",
    "near_record",
    "records_touched",
    "records_share",
    "records_excess",
    "record_evidence",
    "anchor_share",
    "touch_",
)
"""The beginnings of the features of which more is always more of an attack."""


def theme_of(name: str) -> str:
    """The theme of a feature."""
    return next(theme for theme, beginnings in THEMES.items() if name.startswith(beginnings))


def check_names(names: Sequence[str]) -> None:
    """Raise :class:`ConfigError` unless every name is a feature and none comes twice."""
    unknown = [name for name in names if name not in FEATURES]
    if unknown or not names:
        raise ConfigError(f"unknown features {unknown}, expected one or more of: {', '.join(FEATURES)}.")
    if len(set(names)) < len(names):
        raise ConfigError(f"features {sorted({n for n in names if list(names).count(n) > 1})} are named twice.")
