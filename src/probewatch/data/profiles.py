"""Profiles in a folder: a file for each model, and the key of their hashes in a file apart."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from probewatch.data.artefacts import dump_json, is_sealed, replace_file, sealed, sha256_of
from probewatch.data.profile import KEY_BYTES, Key, Profile, Profiles, derive_key
from probewatch.errors import ProfileError

FORMAT = "probewatch profile"
VERSION = 1
KEY_FILE = "profiles.key"
SHOWN_NAME = 60  # characters of a model's name in its file's


def new_key() -> Key:
    """Random bytes, for profiles that are used and not kept."""
    return os.urandom(KEY_BYTES)


def write_profiles(folder: Path | str, profiles: Profiles, key: Key) -> list[Path]:
    """Write each profile to its file in ``folder``; those of other models stay.

    Args:
        folder: made if it is not there.
        profiles: by model.
        key: that they were built with.

    Raises:
        ProfileError: the folder cannot be written, or holds profiles made with another key.
    """
    folder = Path(folder)
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _refuse_mixed(folder, set(map(file_name, profiles)), key if any(one.key for one in profiles.values()) else b"")
        for model, profile in profiles.items():
            form = {"format": FORMAT, "version": VERSION, "model": model, "profile": profile.to_json()}
            if profile.key:
                form["key_check"] = _check_of(key)
            path = folder / file_name(model)
            replace_file(path, dump_json(sealed(form)))
            written.append(path)
    except OSError as error:
        raise ProfileError(f"{folder}: profiles cannot be written there: {error.strerror}.") from error
    return written


def read_profiles(folder: Path | str, key_file: Path | str | None = None) -> dict[str, Profile]:
    """All profiles in a folder, by model, each checked.

    Args:
        folder: as :func:`write_profiles` left it.
        key_file: where the key lies if not in the folder's ``profiles.key``.

    Raises:
        ProfileError: no profiles, one that was changed or is of an unknown version, no key, or another one's.
    """
    folder = Path(folder)
    paths = sorted(folder.glob("*.json")) if folder.is_dir() else []
    if not paths:
        raise ProfileError(f"{folder}: holds no profiles, expected a folder that `probewatch profile` has written.")
    forms = {path: _read_form(path) for path in paths}
    key, where = b"", Path(key_file) if key_file else folder / KEY_FILE
    if any("key_check" in form for form in forms.values()):
        key = read_key(where)
    profiles = {}
    for path, form in forms.items():
        if "key_check" in form and form["key_check"] != _check_of(key):
            raise ProfileError(f"{where}: is not the key that {path} was made with; give the right one with --key.")
        own = derive_key(key, form["model"]) if "key_check" in form else b""
        try:
            profiles[str(form["model"])] = Profile.from_json(form["profile"], own)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ProfileError(f"{path}: cannot be read ({error}); make the profile again.") from error
    return profiles


def read_key(path: Path | str) -> Key:
    """The key in a file.

    Raises:
        ProfileError: no file, or no key in it.
    """
    try:
        text = Path(path).read_text("ascii").strip()
        key = bytes.fromhex(text)
    except OSError as error:
        raise ProfileError(
            f"{path}: the key of the profiles cannot be read ({error.strerror}); say with --key where it lies."
        ) from error
    except ValueError as error:
        raise ProfileError(f"{path}: holds no key, expected {2 * KEY_BYTES} hexadecimal digits.") from error
    if len(key) != KEY_BYTES:
        raise ProfileError(f"{path}: its key has {len(text)} digits, expected {2 * KEY_BYTES} hexadecimal ones.")
    return key


def take_key(path: Path | str, offered: Key | None = None) -> Key:
    """The key in a file, which is made, for its owner's eyes only, if it is not there: of ``offered`` or random bytes.

    Raises:
        ProfileError: it cannot be read or written, or holds no key.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write((offered or new_key()).hex() + "\n")
    except FileExistsError:
        pass
    except OSError as error:
        raise ProfileError(f"{path}: the key cannot be written there: {error.strerror}.") from error
    return read_key(path)


def file_name(model: str) -> str:
    """The file of a model's profile: legible, and different for different names on every file system.

    >>> file_name("credit/v2")
    'credit%2Fv2-5e3a7854.json'
    """
    shown = quote(model, safe="", errors="surrogatepass")[:SHOWN_NAME]
    return f"{shown}-{sha256_of(model.encode('utf-8', 'surrogatepass'))[:8]}.json"


def _refuse_mixed(folder: Path, replaced: set[str], key: Key) -> None:
    """One folder, one key: else none of its profiles could be read."""
    for path in sorted(folder.glob("*.json")) if key else ():
        if path.name not in replaced and _read_form(path).get("key_check", _check_of(key)) != _check_of(key):
            raise ProfileError(f"{path}: was made with another key; give that one with --key, or another --out.")


def _check_of(key: Key) -> str:
    """By which a wrong key is known; it tells nothing of the right one."""
    return hashlib.blake2b(b"check", key=key, digest_size=8).hexdigest()


def _read_form(path: Path) -> Mapping[str, Any]:
    try:
        form = json.loads(path.read_bytes())
    except OSError as error:
        raise ProfileError(f"{path}: cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise ProfileError(f"{path}: damaged ({error}); make the profile again.") from error
    if not isinstance(form, dict) or form.get("format") != FORMAT:
        raise ProfileError(f"{path}: not a profile; make one with `probewatch profile`.")
    if form.get("version") != VERSION:
        raise ProfileError(
            f"{path}: profile version {form.get('version')!r}, expected {VERSION}; make it again with this release."
        )
    if not is_sealed(form) or not isinstance(form.get("model"), str):
        raise ProfileError(f"{path}: was changed or cut short since it was written; make the profile again.")
    return form
