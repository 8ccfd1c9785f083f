"""Probewatch reads the query log of a prediction API and says which clients probe it for training data.

The public names are loaded when they are first used, so that importing the package loads nothing heavy:
``read_logs``, ``read_bundle``, ``read_profiles``, ``build_profile``, ``Profile``, ``Scorer``, ``StreamScorer``,
``Events``, ``FieldMap``, ``Limits``, ``Ragged``, ``SequenceClassifier`` (which needs the ``train`` extra) and
``ProbewatchError``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probewatch.bundle import read_bundle
    from probewatch.data.events import Events
    from probewatch.data.fields import FieldMap
    from probewatch.data.logs import read_logs
    from probewatch.data.profile import Profile, build_profile
    from probewatch.data.profiles import read_profiles
    from probewatch.data.ragged import Ragged
    from probewatch.errors import ProbewatchError
    from probewatch.learn.classifier import SequenceClassifier
    from probewatch.score.batch import Scorer
    from probewatch.score.limits import Limits
    from probewatch.score.stream import StreamScorer

__version__ = "0.1.0"
__all__ = [
    "Events",
    "FieldMap",
    "Limits",
    "ProbewatchError",
    "Profile",
    "Ragged",
    "Scorer",
    "SequenceClassifier",
    "StreamScorer",
    "__version__",
    "build_profile",
    "read_bundle",
    "read_logs",
    "read_profiles",
]

_HOMES = {
    "Events": "probewatch.data.events",
    "FieldMap": "probewatch.data.fields",
    "Limits": "probewatch.score.limits",
    "ProbewatchError": "probewatch.errors",
    "Profile": "probewatch.data.profile",
    "Ragged": "probewatch.data.ragged",
    "Scorer": "probewatch.score.batch",
    "SequenceClassifier": "probewatch.learn.classifier",
    "StreamScorer": "probewatch.score.stream",
    "build_profile": "probewatch.data.profile",
    "read_bundle": "probewatch.bundle",
    "read_logs": "probewatch.data.logs",
    "read_profiles": "probewatch.data.profiles",
}


def __getattr__(name: str) -> Any:
    """A public name, from its module, which is loaded now (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'probewatch' has no attribute {name!r}, expected one of: {', '.join(__all__)}")
    try:
        home = import_module(_HOMES[name])
    except ModuleNotFoundError as error:
        if name != "SequenceClassifier":
            raise
        raise ImportError(
            f"probewatch.{name} needs {error.name}, which this host lacks;"
            " install it with: pip install 'probewatch[train]'.",
            name=error.name,
        ) from error
    globals()[name] = value = getattr(home, name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
