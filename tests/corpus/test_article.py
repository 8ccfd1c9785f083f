import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from probewatch.corpus.article import draw_events, draw_tasks
from probewatch.errors import ConfigError

COLUMNS = ["timestep", "response_confidence", "time_delta_since_last_query", "distance_from_anchor_vector"]


@pytest.fixture(scope="module")
def tasks():
    return draw_tasks()


def column(task, name):
    return np.array([event[name] for event in task["sequence"]])


def malicious(tasks):
    return np.array([task["is_malicious"] for task in tasks.values()])


def test_a_task_has_the_article_fields(tasks):
    assert len(tasks) == 200
    assert malicious(tasks).sum() == 80
    for name, task in tasks.items():
        assert task["task_id"] == name
        assert set(task) == {"task_id", "is_malicious", "global_features", "sequence"}
        assert all(list(event) == COLUMNS for event in task["sequence"])
        assert column(task, "timestep").tolist() == list(range(len(task["sequence"])))
        assert task["sequence"][0]["time_delta_since_last_query"] == 0


def test_malicious_tasks_are_longer_and_3_to_50_times_faster(tasks):
    label = malicious(tasks)
    steps = np.array([len(task["sequence"]) for task in tasks.values()])
    gap_s = np.array([column(task, "time_delta_since_last_query")[1:].mean() for task in tasks.values()])
    speed = 2.75 / gap_s[label]  # 2.75 s is the mean of a benign task's gaps, from 0.5 to 5 s
    assert steps[label].min() >= 150
    assert 240 < steps[label].max() <= 250
    assert steps[~label].min() >= 50
    assert steps[~label].max() <= 150
    assert 2.7 < speed.min() < 4
    assert 40 < speed.max() < 55


@pytest.mark.parametrize("name", COLUMNS[1:])
def test_one_feature_alone_separates_the_classes(tasks, name):
    means = [-column(task, name).mean() for task in tasks.values()]
    assert roc_auc_score(malicious(tasks), means) == 1.0


def test_the_distance_is_zero_at_the_most_confident_query(tasks):
    for task in tasks.values():
        best = np.argmax(column(task, "response_confidence"))
        assert column(task, "distance_from_anchor_vector")[best] == 0


def test_the_raw_form_holds_the_same_queries():
    tasks, events = draw_tasks(20, seed=7), draw_events(20, seed=7)
    queries = [event for event in events if event["eventType"] == "model_query"]
    for name, task in tasks.items():
        own = [event["details"] for event in queries if event["context"]["taskId"] == name]
        assert [one["queryResponse"]["confidence"] for one in own] == column(task, "response_confidence").tolist()
        inputs = np.array([one["queryInput"]["featureVector"] for one in own])
        anchor = inputs[np.argmax(column(task, "response_confidence"))]
        far = np.linalg.norm(inputs - anchor, axis=1)
        assert column(task, "distance_from_anchor_vector") == pytest.approx(far, abs=5e-5)


def test_a_task_of_the_raw_form_starts_queries_and_ends_in_time_order():
    events = draw_events(20)
    assert [event["timestamp"] for event in events] == sorted(event["timestamp"] for event in events)
    kinds = Counter(event["eventType"] for event in events)
    assert kinds["task_start"] == kinds["task_end"] == 20
    assert kinds["internal_activity"] > 0
    for name in {event["context"]["taskId"] for event in events}:
        own = [event["eventType"] for event in events if event["context"]["taskId"] == name]
        assert (own[0], own[-1]) == ("task_start", "task_end")


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 6), st.integers(0, 2**32))
def test_the_same_seed_gives_the_same_tasks_and_another_seed_others(tasks, seed):
    assert json.dumps(draw_tasks(tasks, seed)) == json.dumps(draw_tasks(tasks, seed))
    assert draw_events(tasks, seed) == draw_events(tasks, seed)
    assert draw_tasks(tasks, seed) != draw_tasks(tasks, seed + 1)


@pytest.mark.parametrize("wrong", [{"tasks": 0}, {"seed": -1}])
def test_no_task_and_a_negative_seed_are_refused(wrong):
    with pytest.raises(ConfigError, match="expected at least 1 task and a seed from 0"):
        draw_tasks(**wrong)
    with pytest.raises(ConfigError, match="expected at least 1 task and a seed from 0"):
        draw_events(**wrong)
