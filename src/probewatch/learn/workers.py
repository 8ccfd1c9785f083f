"""Processes that each do jobs on the same sessions: what is trained on one thread need not wait for another."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context, parent_process
from typing import Any, TypeVar

from probewatch.errors import ConfigError
from probewatch.learn.labelled import Labelled

Job = TypeVar("Job")
Done = TypeVar("Done")

_SESSIONS: list[Labelled] = []  # what this process was given to work on; a worker's alone


def run_all(
    work: Callable[[Labelled, Job], Done],
    data: Labelled,
    jobs: Sequence[Job],
    workers: int,
    told: Callable[[int, int], None],
) -> list[Done]:
    """What ``work(data, job)`` gives for each job, in the order of the jobs.

    Args:
        work: a function of a module; it must not depend on what was worked on before.
        workers: processes; with one, the work is done in this one.
        told: called after every job with its number, from 0, and how many are done.

    Raises:
        ConfigError: a worker was killed.
    """
    workers = min(workers, len(jobs))
    if workers <= 1:
        outcomes = []
        for at, job in enumerate(jobs):
            outcomes.append(work(data, job))
            told(at, at + 1)
        return outcomes
    before = set(active_children())
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _receive, (data,))
    try:
        waiting = {pool.submit(_work, work, job): at for at, job in enumerate(jobs)}
        found: dict[int, Done] = {}
        for future in as_completed(waiting):
            found[waiting[future]] = future.result()
            told(waiting[future], len(found))
        pool.shutdown()
    except BaseException as error:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in set(active_children()) - before:  # or a stopped run would end only when its jobs do
            child.terminate()
        if isinstance(error, BrokenProcessPool):
            raise ConfigError(
                f"one of {workers} workers was killed, perhaps for want of memory; give fewer --workers."
            ) from error
        raise
    return [found[at] for at in range(len(jobs))]


def _receive(data: Labelled) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all: who gave the work ends it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _SESSIONS[:] = [data]


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(work: Callable[[Labelled, Any], Any], job: Any) -> Any:
    return work(_SESSIONS[0], job)
