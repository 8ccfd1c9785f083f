"""The verb that makes profiles of attacked models, and what other verbs do with them: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from probewatch.data.wording import counted
from probewatch.errors import ConfigError, ProfileError
from probewatch.serve.options import Json, KeyFile, Map, Quiet

FEW = 50  # records of a kind, below which their distributions are rough
COMMON = 0.5  # share of others that are training records, above which a record touched tells little
SHOWN_MODELS = 5

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from probewatch.data.fields import FieldMap
    from probewatch.data.logs import Log
    from probewatch.data.profile import Profile, Profiles
    from probewatch.data.scales import Scales
    from probewatch.serve.screen import Screen


def profile(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the profiles; other models' stay.")],
    train: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The model's training records with its answers.")
    ] = None,
    holdout: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Records that it was not trained on, with its answers.")
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="The model's name in the logs.")] = None,
    targets: Annotated[
        list[Path] | None,
        typer.Option(
            "--targets", metavar="DIR", help="All models at once: DIR/MODEL/train.* and holdout.*. Repeatable."
        ),
    ] = None,
    from_log: Annotated[
        list[str] | None,
        typer.Option("--from-log", metavar="LOG", help="Without records: estimate from a reference period's queries."),
    ] = None,
    key: KeyFile = None,
    fields: Map = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Keep what you know of your model as a profile: distributions and keyed hashes, and none of its records."""
    from probewatch.data.fields import FieldMap
    from probewatch.data.profiles import KEY_FILE, new_key, read_key, take_key, write_profiles
    from probewatch.serve.screen import Screen

    screen = Screen(as_json=as_json, quiet=quiet)
    by_file = train is not None or holdout is not None
    if sum((by_file, bool(targets), bool(from_log))) != 1:
        raise ConfigError("expected one of --train FILE with --holdout FILE, --targets DIR and --from-log LOG.")
    if not targets and model is None:
        raise ConfigError("--model NAME is missing, expected the model's name in the logs.")
    mapped = FieldMap.load(fields, records=not from_log) if fields else None
    if from_log:
        made, secret = {str(model): _estimated(from_log, mapped, str(model), screen)}, b""
        where = None
    else:
        where = key or out / KEY_FILE
        secret = read_key(where) if where.exists() else new_key()
        made = _owned(train, holdout, str(model), targets, mapped, secret, screen)
        if take_key(where, secret) != secret:
            raise ProfileError(f"{where}: another run has made it meanwhile; run this one again.")
    files = write_profiles(out, made, secret)
    _show(made, files, where, screen)


def chosen_profiles(
    profiles: Sequence[Path] | None, targets: Sequence[Path] | None, key: Path | None, screen: Screen
) -> Profiles:
    """The profiles that a verb was given; those of ``targets`` are made and not kept.

    Raises:
        ConfigError: both a folder of profiles and one of targets, a key without profiles, or a model that two folders
            have.
        ProfileError: they cannot be read or made.
    """
    if profiles and targets:
        raise ConfigError("--profiles and --targets are both given, expected one of them.")
    if key is not None and not profiles:
        raise ConfigError("--key is given without --profiles DIR, whose key it is.")
    if profiles:
        from probewatch.data.profiles import read_profiles

        return _together(profiles, lambda folder: read_profiles(folder, key))
    return _made_of(targets or (), None, None, screen)


def _made_of(targets: Sequence[Path], key: bytes | None, fields: FieldMap | None, screen: Screen) -> dict[str, Profile]:
    from probewatch.data.owned import read_targets

    def read(folder: Path) -> dict[str, Profile]:
        made, told = read_targets(folder, key, fields)
        for sentence in told:
            screen.note(sentence)
        return made

    return _together(targets, read)


def _together(folders: Sequence[Path], read: Callable[[Path], dict[str, Profile]]) -> dict[str, Profile]:
    """The profiles of all folders, by model."""
    found: dict[str, Profile] = {}
    for folder in folders:
        own = read(folder)
        if twice := sorted(found.keys() & own.keys()):
            raise ConfigError(
                f"{folder}: has the model {twice[0]!r}, as a folder before it has; leave one out, or where they are two"
                " models, give one another name (corpus --name)."
            )
        found |= own
    return found


def tell_unprofiled(models: Mapping[str, int], profiles: Profiles, screen: Screen) -> dict[str, Any]:
    """Say once how many sessions went to models without a profile, or with an estimated one; the same for JSON.

    Args:
        models: names in the log, with the number of their sessions.
    """
    lacking = {name: count for name, count in models.items() if name not in profiles}
    guessed = {name: count for name, count in models.items() if name in profiles and profiles[name].estimated}
    among = f"of {sum(models.values()):,} sessions were judged"
    if lacking:
        screen.note(
            f"{sum(lacking.values()):,} {among} without a profile of their model, by the features that need none:"
            f" {_some(lacking)} (see --profiles)."
        )
    unused = profiles.keys() - models.keys()
    if lacking and unused:
        nameless = (
            " A log without a field for it is given its model by model_name in the mapping." if "" in lacking else ""
        )
        screen.note(f"No query went to the models of the profiles {_some(unused)}: is one named otherwise?{nameless}")
    if guessed:
        screen.note(
            f"{sum(guessed.values()):,} {among} by a profile that was estimated from a log, which tells nothing of"
            f" training records: {_some(guessed)}."
        )
    return {"without_profile": sum(lacking.values()), "estimated_profile": sum(guessed.values())}


def tell_other_lengths(log: Log, scales: Scales, screen: Screen) -> dict[str, int]:
    """Say of each model how many queries have an input vector of another length than is known; the same for JSON.

    Nothing usual is known of such a vector, and it is no training record.
    """
    found = 0
    for (model, length), count in log.lengths().items():
        known = len(scales[model].centre) if model in scales else 0
        if known in (0, length):
            continue
        found += count
        screen.note(
            f"{counted(count, 'query', 'queries')} to {model or '(none)'} came with another number of inputs than the"
            f" {known} that are known of it, and can be compared with one another alone: has the model changed, or what"
            " the log keeps of it?"
        )
    return {"other_length": found}


def _some(models: Iterable[str]) -> str:
    names = sorted(name or "(none)" for name in models)
    shown = ", ".join(names[:SHOWN_MODELS])
    return shown + (", …" if len(names) > SHOWN_MODELS else "")


def _owned(
    train: Path | None,
    holdout: Path | None,
    model: str,
    targets: Sequence[Path] | None,
    fields: FieldMap | None,
    key: bytes,
    screen: Screen,
) -> dict[str, Profile]:
    from probewatch.data.owned import read_records
    from probewatch.data.profile import build_profile

    if targets:
        return _made_of(targets, key, fields, screen)
    if train is None or holdout is None:
        raise ConfigError(
            f"--{'holdout' if holdout is None else 'train'} FILE is missing: a profile sets training records"
            " against others; without records there is --from-log LOG."
        )
    own = [read_records(path, fields) for path in (train, holdout)]
    for sentence in own[0].told + own[1].told:
        screen.note(sentence)
    return {model: build_profile(own[0].records, own[1].records, key, model)}


def _estimated(logs: list[str], fields: FieldMap | None, model: str, screen: Screen) -> Profile:
    from probewatch.data.estimate import estimate_profile
    from probewatch.data.logs import read_logs

    with screen.progress("reading") as told:
        log = read_logs(logs, fields=fields, progress=lambda done, total: told(done, total, ""))
    with log:
        if log.counts.rejects:
            screen.note(f"{log.counts.rejects:,} lines were rejected, the first: {log.rejected[0]}")
        return estimate_profile(log.all_sessions(), model)


def _show(made: Profiles, files: list[Path], key: Path | None, screen: Screen) -> None:
    from rich.table import Table

    from probewatch.serve.show import figure, name_of

    table = Table(title="Profiles", title_justify="left")
    table.add_column("model")
    for head in ("training records", "others", "inputs", "coincidences", "KiB"):
        table.add_column(head, justify="right")
    rows = []
    for (name, one), path in zip(made.items(), files, strict=True):
        rate = None if one.rate != one.rate else one.rate
        size = path.stat().st_size
        row = {
            "model": name, "file": str(path), "bytes": size, "train": one.records[0], "holdout": one.records[1],
            "inputs": len(one.widths), "coincidence_rate": rate, "estimated": one.estimated,
        }  # fmt: skip
        rows.append(row)
        table.add_row(
            name_of(name), f"{one.records[0]:,}", f"{one.records[1]:,}", str(len(one.widths)), figure(rate),
            f"{size / 1024:.0f}",
        )  # fmt: skip
    screen.table(table)
    for name, one in made.items():
        for few, kind in zip(one.records, ("training records", "others"), strict=True):
            if few < FEW and not one.estimated:
                screen.note(f"{name_of(name)}: {few:,} {kind} are few to measure by; a few hundred or more are better.")
        if one.rate > COMMON:
            screen.note(
                f"{name_of(name)}: {one.rate:.0%} of the others are training records too, so touching one tells little;"
                " are the two files apart?"
            )
        if not len(one.edges) and not one.estimated:
            screen.note(
                f"{name_of(name)}: there are no confidences of one kind of records or both, so it cannot tell how the"
                " model answers training records; map the field of the model's own answers (confidence)."
            )
    if any(one.estimated for one in made.values()):
        screen.note("Estimated from a log: it knows no training records, so it tells nothing of membership.")
    if key is not None:
        screen.line(f"Key: {key}   Keep it apart from the profiles: whoever has both can test guessed records.")
    screen.json({"profiles": rows, "key": str(key) if key else None})
