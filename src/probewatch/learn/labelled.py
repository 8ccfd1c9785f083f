"""Labelled: sessions with what is known of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from probewatch.data.profile import Profiles
from probewatch.data.records import Sessions


@dataclass(frozen=True)
class Labelled:
    """S sessions with what is known of them.

    Attributes:
        sessions: the queries.
        label: (S,) int8, 1 attack, 0 benign, -1 unknown.
        family: (S,) str objects, "" where unknown; for reports alone.
        allowed: (S,) bool, of a client on the allow-list.
        sha256: of the log's files.
        profiles: of the models that the owner knows, by name.
        actor: (S,) str objects, who stands behind the client, "" where unknown.
        other: (S,) bool, an attack on something else than membership: neither learned from nor counted.
        target: (S,) str objects, the attacked model as the labels name it, "" where unknown.
    """

    sessions: Sessions
    label: NDArray[np.int8]
    family: NDArray[np.object_]
    allowed: NDArray[np.bool_]
    sha256: str
    profiles: Profiles = field(default_factory=dict)
    actor: NDArray[np.object_] | None = None
    other: NDArray[np.bool_] | None = None
    target: NDArray[np.object_] | None = None

    @property
    def elsewhere(self) -> NDArray[np.bool_]:
        """(S,) bool, attacks on something else than membership; none where that is not known."""
        return np.zeros(len(self.sessions), bool) if self.other is None else self.other

    @property
    def by_actor(self) -> Sessions:
        """The sessions with their actor, where one is known, in the client's place: what splits keep together."""
        if self.actor is None:
            return self.sessions
        return replace(self.sessions, client=np.where(self.actor != "", self.actor, self.sessions.client))

    @property
    def aside(self) -> NDArray[np.bool_]:
        """(S,) bool, sessions that have their own row in the figures: allow-listed clients and other attacks."""
        return (self.allowed & (self.label >= 0)) | self.elsewhere
