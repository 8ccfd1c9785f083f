"""Profiles in a folder: whole or refused, and of no use without the key that lies apart."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import numpy as np
import pytest

from probewatch.data.profile import Profile, Records, build_profile
from probewatch.data.profiles import KEY_FILE, file_name, new_key, read_profiles, take_key, write_profiles
from probewatch.errors import ProfileError

NAMES = ("credit", "Credit", "a/b", "", "..", "ünï 🙂", "x" * 300, 'q"uo\\te', "\ud800")


def profile_of(model: str, key: bytes) -> Profile:
    random = np.random.default_rng(0)
    train, holdout = (Records(random.normal(size=(20, 3)), random.random(20)) for _ in range(2))
    return build_profile(train, holdout, key, model)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one profile and its key."""
    key = take_key(tmp_path / KEY_FILE)
    write_profiles(tmp_path, {"credit": profile_of("credit", key)}, key)
    return tmp_path


def test_profiles_of_models_with_any_name_come_back_as_they_were(tmp_path: Path) -> None:
    key = take_key(tmp_path / KEY_FILE)
    written = {name: profile_of(name, key) for name in NAMES}
    paths = write_profiles(tmp_path, written, key)
    assert len({str(path).casefold() for path in paths}) == len(NAMES)
    assert all(path.parent == tmp_path for path in paths)
    found = read_profiles(tmp_path)
    assert found.keys() == written.keys()
    for name, one in found.items():
        assert one.key == written[name].key
        assert one.to_json() == written[name].to_json()


def test_profiles_of_other_models_stay_and_the_same_ones_is_replaced(folder: Path) -> None:
    key = take_key(folder / KEY_FILE)
    write_profiles(folder, {"other": profile_of("other", key), "credit": profile_of("credit", key)}, key)
    assert set(read_profiles(folder)) == {"credit", "other"}
    assert len(list(folder.iterdir())) == 3


def test_the_key_is_made_once_for_its_owners_eyes_only(tmp_path: Path) -> None:
    path = tmp_path / "secrets" / "one.key"
    key = take_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert take_key(path) == key
    assert len(key) == 16
    assert new_key() != new_key()


def test_the_key_is_in_no_profile(folder: Path) -> None:
    key = take_key(folder / KEY_FILE)
    text = (folder / file_name("credit")).read_text()
    assert key.hex() not in text


def test_a_key_kept_elsewhere_is_found(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    apart = tmp_path_factory.mktemp("apart") / "key"
    (folder / KEY_FILE).rename(apart)
    with pytest.raises(ProfileError, match=r"profiles.key: the key of the profiles cannot be read .* say with --key"):
        read_profiles(folder)
    assert set(read_profiles(folder, apart)) == {"credit"}


def test_a_wrong_or_broken_key_is_refused(folder: Path) -> None:
    other = folder / "other.key"
    take_key(other)
    with pytest.raises(ProfileError, match=r"other.key: is not the key that .*credit-.*json was made with"):
        read_profiles(folder, other)
    other.write_text("nonsense")
    with pytest.raises(ProfileError, match="holds no key, expected 32 hexadecimal digits"):
        read_profiles(folder, other)
    other.write_text("abcd")
    with pytest.raises(ProfileError, match="its key has 4 digits, expected 32"):
        read_profiles(folder, other)


def test_two_keys_in_one_folder_are_refused(folder: Path) -> None:
    key = new_key()
    with pytest.raises(ProfileError, match="was made with another key"):
        write_profiles(folder, {"other": profile_of("other", key)}, key)
    assert set(read_profiles(folder)) == {"credit"}


def test_a_changed_profile_is_refused(folder: Path) -> None:
    path = folder / file_name("credit")
    whole = path.read_bytes()
    form = json.loads(whole)
    form["profile"]["rate"] = 0.5
    path.write_text(json.dumps(form))
    with pytest.raises(ProfileError, match="was changed or cut short"):
        read_profiles(folder)
    for content, reason in (
        (whole[:-40], "damaged"),
        (b"[]", "not a profile"),
        (b'{"format": "probewatch profile", "version": 99}', "profile version 99, expected 1"),
    ):
        path.write_bytes(content)
        with pytest.raises(ProfileError, match=reason):
            read_profiles(folder)


def test_a_folder_without_profiles_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ProfileError, match="holds no profiles, expected a folder"):
            read_profiles(folder)
    (tmp_path / "file").write_text("")
    with pytest.raises(ProfileError, match="profiles cannot be written there"):
        write_profiles(tmp_path / "file", {}, new_key())


def test_profiles_without_training_records_need_no_key(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    nothing, some = Records(np.zeros((0, 3)), np.zeros(0)), Records(random.normal(size=(60, 3)), random.random(60))
    from dataclasses import replace

    estimated = replace(build_profile(nothing, some, b"", "m"), key=b"", estimated=True)
    write_profiles(tmp_path, {"m": estimated}, b"")
    assert read_profiles(tmp_path)["m"].estimated
