"""No verb writes over what it reads, nor two of its outputs over one another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from probewatch.data.artefacts import files_like
from probewatch.errors import ConfigError

WRITTEN = ("out", "rejects", "alerts", "dead_letter", "metrics", "state")
READ = ("logs", "labels", "allow", "fields", "config", "recipe", "key", "train", "holdout")


def refuse_clashes(given: Mapping[str, Any]) -> None:
    """Refuse a file that an option writes where another writes or reads it.

    Args:
        given: the verb's parameters by name; folders, ports and devices are no such files.

    Raises:
        ConfigError: there is one.
    """
    taken: dict[Path, str] = {}
    for name in (*READ, *WRITTEN):
        for path in _files(given.get(name)):
            before = taken.setdefault(path, name)
            if before != name and name in WRITTEN:
                raise ConfigError(
                    f"{path}: is both {_option(before)} and {_option(name)}, which would write over it; choose another"
                    f" {_option(name)}."
                )


def _files(value: Any) -> Iterator[Path]:
    for one in value if isinstance(value, list) else [value]:
        if not isinstance(one, str | Path) or str(one) in ("", "-") or str(one).isdecimal():
            continue
        for name in files_like(one) or [str(one)]:
            path = Path(name).resolve()
            if path.is_file() or not path.exists():
                yield path


def _option(name: str) -> str:
    return {"logs": "a log", "fields": "--map"}.get(name, f"--{name.replace('_', '-')}")
