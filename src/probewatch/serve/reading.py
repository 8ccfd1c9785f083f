"""What verbs are given: logs, labels and settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probewatch.data.wording import counted
from probewatch.errors import BundleError, ConfigError

if TYPE_CHECKING:
    from probewatch.bundle import Bundle
    from probewatch.data.logs import Log
    from probewatch.data.profile import Profiles
    from probewatch.learn.labelled import Labelled
    from probewatch.learn.presets import Config
    from probewatch.serve.screen import Screen


def open_log(logs: list[str], fields: Path | None, gap: float, rejects: Path | None, screen: Screen) -> Log:
    """The log that a verb was given, read; what was rejected is told.

    Raises:
        LogError: it cannot be read.
        MappingError: its fields are not known.
    """
    from probewatch.data.fields import FieldMap
    from probewatch.data.logs import read_logs

    with screen.progress("reading") as told:
        log = read_logs(
            logs,
            fields=FieldMap.load(fields) if fields else None,
            gap_s=gap,
            rejects=rejects,
            progress=lambda done, total: told(done, total, ""),
        )
    for name in log.cut_short:
        screen.warn(f"{name}: breaks off before its end; what came before was read. Fetch it anew.")
    for first, other in log.repeats:
        screen.warn(f"{other}: holds the same queries as {first}, and so they count twice. Name one of the two.")
    if log.early:
        screen.note(
            f"{log.early:,} of {log.counts.events:,} queries lie before 1973: small numbers are read as seconds since"
            " 1970. Check which field the mapping takes for the time."
        )
    lacking = [name for name in ("confidence", "inputs") if name not in log.fields]
    if lacking and log.counts.events and not log.given:
        screen.note(
            f"As it is read, the log has no {' and no '.join(lacking)}, which most features are made of (`probewatch"
            " inspect` tells how many are left). If its lines have them, say where with --map."
        )
    if log.counts.rejects:
        screen.note(
            f"{counted(log.counts.rejects, 'line')} rejected, the first: {log.rejected[0]}"
            + ("" if rejects else " (--rejects FILE writes all)")
        )
    return log


def choose_detector(arguments: list[str], *, live: bool = False) -> tuple[Bundle, list[str]]:
    """The detector that a verb was given or else the package's own, and the logs.

    Args:
        live: a verb that may do without logs.

    Raises:
        BundleError: the folder is no detector.
        ConfigError: a detector without logs.
    """
    from probewatch.bundle import read_bundle, read_own

    if not arguments:
        return read_own(), []
    first = Path(arguments[0])
    if not first.is_dir():
        missing = arguments[0] != "-" and not first.exists() and not set(arguments[0]) & set("*?[")
        if missing and (live or len(arguments) > 1):
            raise BundleError(f"{first}: not a bundle, expected a folder with a manifest.json in it, or a log.")
        return read_own(), arguments
    if len(arguments) == 1 and not live:
        raise ConfigError(f"{arguments[0]} is a folder, expected a LOG after the detector; add one.")
    return read_bundle(arguments[0]), arguments[1:]


def label_sessions(
    log: Log, labels: Sequence[Path] | None, allow: Sequence[Path] | None, profiles: Profiles, screen: Screen
) -> Labelled:
    """The log's sessions with what the labels and the allow-list say of them, and the profiles of their models.

    Raises:
        LabelError: a file cannot be used.
    """
    import numpy as np

    from probewatch.data.labels import read_allow, read_labels
    from probewatch.learn.labelled import Labelled

    sessions = log.all_sessions()
    label, family = sessions.label, np.full(sessions.session.shape, "", object)
    actor, other, target = None, None, None
    if labels:
        matched = read_labels(*labels).match(sessions.session, sessions.client)
        label, family, target = matched.label, matched.family, matched.target
        actor, other = matched.actor, matched.other
        for sentence in matched.warnings:
            screen.note(sentence)
    clients = read_allow(*allow or ())
    allowed = np.array([client in clients for client in sessions.client], bool)
    return Labelled(sessions, label, family, allowed, log.sha256, profiles, actor, other, target)


def choose_config(preset: str, path: Path | None, changes: Mapping[str, Any]) -> Config:
    """The preset with the settings of a file, and with ``changes``, where they are not None.

    Both may say the budget of false alarms as alerts a day.

    Raises:
        ConfigError: an unknown preset, or wrong settings.
    """
    need_training_extra()
    from probewatch.learn.budget import DAILY, daily_fpr, read_settings
    from probewatch.learn.presets import PRESETS

    if preset not in PRESETS:
        raise ConfigError(f"--preset is {preset!r}, expected one of: {', '.join(PRESETS)}.")
    config, daily = read_settings(path, PRESETS[preset]) if path else (PRESETS[preset], {})
    given = {name: value for name, value in changes.items() if value is not None}
    asked = {name: given.pop(name) for name in DAILY if name in given}
    if asked and "max_fpr" in given:
        raise ConfigError("--max-fpr and alerts per day are both given, expected one budget of false alarms.")
    if "max_fpr" not in given and (daily or asked):
        given["max_fpr"] = daily_fpr({**daily, **asked})
    return config.with_changes(given)


def need_training_extra() -> None:
    """Refuse, with what to install, where the libraries of training are not.

    Raises:
        ConfigError: some are lacking.
    """
    from importlib.util import find_spec

    lacking = [name for name in ("torch", "sklearn", "onnx", "safetensors", "matplotlib") if find_spec(name) is None]
    if lacking:
        raise ConfigError(
            f"training and evaluation need {', '.join(lacking)}, which this host lacks;"
            " install them with: pip install 'probewatch[train]'."
        )
