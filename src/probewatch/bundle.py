"""The bundle: a saved detector in a folder, the one contract between learning and scoring.

``manifest.json`` names the other files, which carry their sha256 in their names: the ONNX graph, the
weights (safetensors), the scales of the models, and hashes of the sessions that were held out. Replacing
the manifest is the commit: a run that is killed before leaves the previous bundle whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probewatch.data.artefacts import dump_json, is_sealed, replace_file, sealed, sha256_of
from probewatch.data.columns import FEATURES
from probewatch.data.records import Sessions
from probewatch.data.scales import Scale
from probewatch.data.wording import counted, listed
from probewatch.errors import BundleError, OutputError

VERSION = 1
MANIFEST = "manifest.json"
_SUFFIX = {"graph": "onnx", "weights": "safetensors", "scales": "json", "held_out": "json", "clients": "json"}
_NEEDED = ("features", "decision", "threshold", "streams", "data", "config", "metrics", "baseline")


@dataclass(frozen=True)
class Bundle:
    """A saved detector, checked.

    Attributes:
        folder: where it lies.
        manifest: features and their order, decision (``peak`` or ``last``), threshold, streams,
            baseline, configuration, versions, data, metrics.
        graph: the serialised ONNX graph.
        scales: usual queries of the models it was trained on.
        held_out: keys of the test sessions of its training log, see :func:`session_keys`.
        clients: keys of the clients that it learned from, see :func:`client_key`.
    """

    folder: Path
    manifest: Mapping[str, Any]
    graph: bytes
    scales: Mapping[str, Scale]
    held_out: frozenset[str]
    clients: frozenset[str] = frozenset()

    @property
    def features(self) -> list[str]:
        """F names, in the order of the graph's input."""
        return list(self.manifest["features"])

    @property
    def wants_profiles(self) -> bool:
        """Whether a profile would tell it more than it knows without."""
        return any(FEATURES[name].group in ("profile", "members") for name in self.features)

    @property
    def needs(self) -> frozenset[str]:
        """``confidence`` and ``inputs``, where it was trained without gaps and cannot do without."""
        groups = {FEATURES[name].group for name in self.features}
        return frozenset(() if self.manifest["masks"] else groups & {"confidence", "inputs"})

    def holds_out(self, sessions: Sessions) -> NDArray[np.bool_]:
        """(S,) whether it was tested on a session of its training log, and so did not learn from it."""
        return np.array([key in self.held_out for key in session_keys(sessions)], bool)

    @property
    def threshold(self) -> float:
        """A session whose score reaches it raises an alert."""
        return float(self.manifest["threshold"])

    @property
    def prior(self) -> float:
        """The share of attacks at which its scores are probabilities: that of the sessions it was calibrated on."""
        return float(self.manifest.get("prior", self.manifest["data"]["attack_share"]))


def is_bundle(path: Path | str) -> bool:
    """True for a folder with a ``manifest.json``."""
    return (Path(path) / MANIFEST).is_file()


def session_keys(sessions: Sessions) -> list[str]:
    """A short hash of each session that tells it again without naming it; a task over two models is two sessions."""
    named = zip(sessions.session, sessions.client, sessions.model, strict=True)
    return [_key(f"{client}\0{session}\0{model}") for session, client, model in named]


def client_key(client: str) -> str:
    """A short hash that tells a client again without naming it."""
    return _key(f"{client}\0")


def _key(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


@dataclass(frozen=True)
class Overlap:
    """What of a log a detector has already met in training.

    Attributes:
        clients, models: how many the log has.
        known_clients: how many of the clients it learned from.
        new_models: the models that it did not learn from.
        unscaled_models: those of them that no profile tells of.
    """

    clients: int
    known_clients: int
    models: int
    new_models: tuple[str, ...]
    unscaled_models: tuple[str, ...]

    @classmethod
    def of(
        cls, bundle: Bundle, clients: Iterable[str], models: Iterable[str], profiled: Collection[str] = ()
    ) -> Overlap:
        """The overlap of a log with these distinct clients and models, some of which have a profile."""
        known = [client_key(client) in bundle.clients for client in clients]
        models = sorted(models)
        new = tuple(one for one in models if one not in bundle.scales)
        return cls(len(known), sum(known), len(models), new, tuple(one for one in new if one not in profiled))

    def sentences(self) -> list[str]:
        """What a person should know of it: nothing where all clients are new and all models known."""
        told = []
        if self.known_clients:
            told.append(
                f"{_share(self.known_clients, self.clients, 'client')} in the detector's training;"
                " it may do better on them than on others."
            )
        if self.new_models:
            names = listed(name or "(none)" for name in self.new_models)
            told.append(
                f"{_share(len(self.new_models), self.models, 'model')} not in the detector's training ({names})"
                + (
                    "; without a profile, inputs are scaled by each session's own spread."
                    if self.unscaled_models
                    else "."
                )
            )
        return told

    def to_json(self) -> dict[str, Any]:
        """The counts as JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def _share(some: int, all_: int, noun: str) -> str:
    """As "2 of 3 clients were"."""
    return f"{some:,} of {counted(all_, noun)} {'was' if some == 1 else 'were'}"


def write_bundle(
    folder: Path | str,
    manifest: Mapping[str, Any],
    *,
    graph: bytes,
    weights: bytes,
    scales: Mapping[str, Scale],
    held_out: Iterable[str],
    card: str,
    clients: Iterable[str] = (),
) -> Bundle:
    """Write a detector; the folder holds the previous one whole until the last step, then this one.

    Raises:
        OutputError: the folder cannot be written.
    """
    folder = Path(folder)
    parts = {
        "graph": graph,
        "weights": weights,
        "scales": dump_json({model: scale.to_json() for model, scale in scales.items()}),
        "held_out": dump_json(sorted(held_out)),
        "clients": dump_json(sorted(clients)),
    }
    names = {role: f"{role}-{sha256_of(part)}.{_SUFFIX[role]}" for role, part in parts.items()}
    form = {**manifest, "format": "probewatch", "version": VERSION, "files": names}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for role, part in parts.items():
            replace_file(folder / names[role], part)
        replace_file(folder / "README.md", card.encode())
        replace_file(folder / MANIFEST, dump_json(sealed(form)))
        for role, suffix in _SUFFIX.items():
            for old in folder.glob(f"{role}-*.{suffix}"):
                if old.name != names[role]:
                    old.unlink()
    except OSError as error:
        raise OutputError(
            f"{folder}: the bundle cannot be written there ({error.strerror}); free disk, or name another folder."
        ) from error
    return read_bundle(folder)


def read_bundle(folder: Path | str) -> Bundle:
    """Load a detector and check every byte of it.

    Raises:
        BundleError: no bundle, a changed or missing file, an unknown version or feature.
    """
    folder = Path(folder)
    manifest = _read_manifest(folder)
    parts = {role: _read_part(folder, manifest, role) for role in _SUFFIX}
    try:
        scales = {model: Scale.from_json(form) for model, form in json.loads(parts["scales"]).items()}
        held_out, clients = (frozenset(map(str, json.loads(parts[role]))) for role in ("held_out", "clients"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{folder}: its scales cannot be read ({error}); train the bundle again.") from error
    return Bundle(folder, manifest, parts["graph"], scales, held_out, clients)


def read_own() -> Bundle:
    """The detector that comes with the package; see its README.md for what it was trained on and what it does.

    It knows no model by name: a reader's ``digits-forest`` is not the one that training had under that name.

    Raises:
        BundleError: the package was damaged.
    """
    with as_file(files("probewatch") / "detector") as folder:
        return replace(read_bundle(folder), scales={})


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
    except OSError as error:
        raise BundleError(f"{folder}: not a bundle, expected a folder with a {MANIFEST} in it.") from error
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: damaged ({error}); train the bundle again.") from error
    if not isinstance(manifest, dict) or manifest.get("format") != "probewatch":
        is_corpus = isinstance(manifest, dict) and (folder / "labels.csv").exists()
        instead = f"it is a corpus's, whose log is {folder}/events.*" if is_corpus else "train one: `probewatch train`"
        raise BundleError(f"{path}: not a detector's manifest; {instead}.")
    if manifest.get("version") != VERSION:
        raise BundleError(
            f"{path}: bundle version {manifest.get('version')!r}, expected {VERSION}; train it again with this release."
        )
    if not is_sealed(manifest):
        raise BundleError(f"{path}: it was changed after training; train the bundle again.")
    lacking = [name for name in (*_NEEDED, "files") if name not in manifest]
    unknown = [name for name in manifest.get("features", []) if name not in FEATURES]
    if lacking or unknown:
        raise BundleError(
            f"{path}: it lacks {listed(lacking) or 'nothing'} and has unknown features ({listed(unknown) or 'none'});"
            " use another release."
        )
    return manifest


def _read_part(folder: Path, manifest: Mapping[str, Any], role: str) -> bytes:
    name = str(manifest["files"].get(role, ""))
    if not name or Path(name).name != name:
        raise BundleError(f"{folder / MANIFEST}: it names no file of its own as {role}; train the bundle again.")
    try:
        part = (folder / name).read_bytes()
    except OSError as error:
        raise BundleError(f"{folder / name}: missing from the bundle; copy the whole folder again.") from error
    if name != f"{role}-{sha256_of(part)}.{_SUFFIX[role]}":
        raise BundleError(f"{folder / name}: changed or cut short since it was written; copy the bundle again.")
    return part
