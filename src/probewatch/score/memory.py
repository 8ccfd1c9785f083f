"""What a stream remembers apart from its sessions' state, and how it is written down."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from probewatch.data.events import Events
from probewatch.score.arrivals import Queue, new_requests
from probewatch.score.hashing import REGISTERS
from probewatch.score.incidents import Incident, Incidents
from probewatch.score.limits import Limits
from probewatch.score.slots import CROWDED, IDLE, LATE


class Memory:
    """Counters, waiting events, request ids, client-days, incidents and records of one stream, changed as it goes.

    Attributes:
        queue: events that wait for earlier ones.
        incidents: the open ones, and the records of clients.
        requests: ids by which repeated events are known.
        days: (REGISTERS,) uint8, the counter of client-days.
        pushed, scored, repeated, told: events taken in, scored and dropped; findings made.
        position: where the input is.
    """

    def __init__(self, limits: Limits, threshold: float) -> None:
        self.queue = Queue(limits.tolerance_s, Events.of([], []), np.zeros(0, np.int64))
        self.incidents = Incidents(threshold, limits.quiet_s)
        self.requests = new_requests()
        self.days: NDArray[np.uint8] = np.zeros(REGISTERS, np.uint8)
        self.pushed = self.scored = self.repeated = self.told = 0
        self.position: dict[str, Any] = {}

    def to_values(self, counts: NDArray[np.int64]) -> dict[str, bytes]:
        """All but the requests by name, with the sessions' counters; :meth:`restore` takes it."""
        table = self.queue.events.to_table().append_column("number", pa.array(self.queue.arrivals))
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        incidents = self.incidents
        form = {
            "pushed": self.pushed, "scored": self.scored, "repeated": self.repeated, "told": self.told,
            "clock_s": self.queue.clock_s, "recent": self.queue.recent.tolist(), "opened": incidents.opened,
            "position": self.position, "counts": [int(counts[at]) for at in (IDLE, CROWDED, LATE)],
            "open": [[owner, incident.to_json()] for owner, incident in incidents.open.items()],
        }  # fmt: skip
        return {
            "small": json.dumps(form).encode(),
            "waiting": sink.getvalue().to_pybytes(),
            "days": self.days.tobytes(),
            "owners": np.array(list(incidents.records), np.int64).tobytes(),
            "peaks": np.array(list(incidents.records.values()), np.float64).tobytes(),
        }

    def restore(self, get: Callable[[str], bytes | None], counts: NDArray[np.int64]) -> None:
        """Go on from what :meth:`to_values` gave; ``get`` gives nothing where there was no earlier run."""
        small = get("small")
        if small is None:
            return
        form = json.loads(small)
        self.pushed, self.scored, self.repeated = form["pushed"], form["scored"], form["repeated"]
        self.told, self.position = form["told"], form["position"]
        self.queue.clock_s, self.queue.recent = form["clock_s"], np.array(form["recent"], np.float64)
        table = pa.ipc.open_stream(get("waiting")).read_all()
        self.queue.events, self.queue.arrivals = Events.from_table(table), table.column("number").to_numpy()
        for place, count in zip((IDLE, CROWDED, LATE), form["counts"], strict=True):
            counts[place] = count
        self.days[:] = np.frombuffer(get("days") or b"", np.uint8)
        self.incidents.opened = form["opened"]
        owners, peaks = (get(name) or b"" for name in ("owners", "peaks"))
        self.incidents.restore(
            ((owner, Incident.from_json(one)) for owner, one in form["open"]),
            zip(np.frombuffer(owners, np.int64).tolist(), np.frombuffer(peaks).tolist(), strict=True),
        )
