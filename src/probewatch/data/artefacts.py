"""What names stand for, and files that appear whole or not at all and check themselves by JSON and hashes."""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def dump_json(form: Any) -> bytes:
    """The one JSON text of a form, for files and for their hashes."""
    return (json.dumps(form, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8", "surrogatepass")


def sha256_of(part: bytes) -> str:
    """Hash of some bytes, in hexadecimal."""
    return hashlib.sha256(part).hexdigest()


def sealed(form: Mapping[str, Any]) -> dict[str, Any]:
    """The form with the hash of all that is in it."""
    return {**form, "sha256": sha256_of(dump_json(form))}


def is_sealed(form: Mapping[str, Any]) -> bool:
    """Whether nothing was changed since :func:`sealed`."""
    try:
        return sealed({name: value for name, value in form.items() if name != "sha256"}) == form
    except ValueError:  # a NaN, which is never written
        return False


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Where to write what takes the file's place at the end; a run that fails or is killed leaves the old one whole."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def files_like(path: Path | str) -> list[str]:
    """What a name or a pattern stands for: the name itself where something is called so."""
    return [str(path)] if Path(path).exists() else sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207


def replace_file(path: Path, part: bytes) -> None:
    """Put the bytes in the file's place at once; see :func:`replacing`."""
    with replacing(path) as partial:
        partial.write_bytes(part)
