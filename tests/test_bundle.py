"""A bundle is whole, or it is refused with a sentence."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from probewatch.bundle import MANIFEST, Bundle, is_bundle, read_bundle, session_keys, write_bundle
from probewatch.data.artefacts import dump_json, sealed
from probewatch.errors import BundleError, OutputError
from probewatch.learn.labelled import Labelled
from probewatch.network import Network


@pytest.fixture
def copy(bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle.folder, tmp_path / "copy"))


def _rewrite(folder: Path, **changes: Any) -> None:
    """Change the manifest and make its own hash fit again, as a careful forger would."""
    manifest = json.loads((folder / MANIFEST).read_bytes()) | changes
    manifest.pop("sha256")
    (folder / MANIFEST).write_bytes(dump_json(sealed(manifest)))


def test_what_was_written_is_read_again(bundle: Bundle) -> None:
    again = read_bundle(bundle.folder)
    assert again.manifest == bundle.manifest
    assert again.graph == bundle.graph
    assert again.held_out == bundle.held_out
    assert again.scales["credit"].to_json() == bundle.scales["credit"].to_json()
    assert is_bundle(bundle.folder)
    assert again.threshold == bundle.manifest["threshold"]
    assert set(bundle.scales) == {"credit"}


def test_nothing_in_a_bundle_is_a_pickle_or_names_a_client(bundle: Bundle) -> None:
    for path in bundle.folder.iterdir():
        if path.is_file():
            assert path.suffix in {".json", ".onnx", ".safetensors", ".md"}
            assert b"user-" not in path.read_bytes()


@pytest.mark.parametrize("role", ["graph", "weights", "scales", "held_out"])
def test_a_changed_byte_is_refused(copy: Path, role: str) -> None:
    path = next(copy.glob(f"{role}-*"))
    changed = bytearray(path.read_bytes())
    changed[len(changed) // 2] ^= 1
    path.write_bytes(changed)
    with pytest.raises(BundleError, match=r"changed or cut short since it was written; copy the bundle again"):
        read_bundle(copy)


def test_a_missing_file_is_refused(copy: Path) -> None:
    next(copy.glob("graph-*")).unlink()
    with pytest.raises(BundleError, match="missing from the bundle"):
        read_bundle(copy)


def test_an_edited_threshold_is_refused(copy: Path) -> None:
    path = copy / MANIFEST
    manifest = json.loads(path.read_bytes())
    path.write_text(json.dumps(manifest | {"threshold": 0.99}))
    with pytest.raises(BundleError, match="it was changed after training"):
        read_bundle(copy)


def test_an_unknown_version_is_refused(copy: Path) -> None:
    _rewrite(copy, version=99)
    with pytest.raises(BundleError, match="bundle version 99, expected 1"):
        read_bundle(copy)


def test_another_order_of_the_features_is_refused(copy: Path) -> None:
    features = json.loads((copy / MANIFEST).read_bytes())["features"]
    _rewrite(copy, features=features[::-1])
    forged = read_bundle(copy)
    with pytest.raises(BundleError, match="the graph expects the features"):
        Network(forged.graph, forged.features)


def test_an_unknown_feature_is_refused(copy: Path) -> None:
    features = json.loads((copy / MANIFEST).read_bytes())["features"]
    _rewrite(copy, features=[*features[:-1], "moon_phase"])
    with pytest.raises(BundleError, match="moon_phase"):
        read_bundle(copy)


def test_a_manifest_cannot_point_outside_its_folder(copy: Path) -> None:
    files = json.loads((copy / MANIFEST).read_bytes())["files"]
    _rewrite(copy, files=files | {"graph": "../../etc/passwd"})
    with pytest.raises(BundleError, match="names no file of its own"):
        read_bundle(copy)


def _says_the_same(left: bytes, right: bytes) -> bool:
    try:
        return bool(json.loads(left) == json.loads(right))
    except ValueError:
        return False


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300))
def test_a_damaged_manifest_is_a_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MANIFEST).write_bytes(content)
    with pytest.raises(BundleError, match=r"\.$"):
        read_bundle(tmp_path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(min_value=0, max_value=10_000), st.integers(min_value=1, max_value=255))
def test_any_flipped_bits_of_the_manifest_are_refused(bundle: Bundle, tmp_path: Path, at: int, flip: int) -> None:
    whole = (bundle.folder / MANIFEST).read_bytes()
    content = bytearray(whole)
    content[at % len(content)] ^= flip
    assume(not _says_the_same(bytes(content), whole))  # a space for a line end
    (tmp_path / MANIFEST).write_bytes(content)
    for path in bundle.folder.glob("*-*"):
        (tmp_path / path.name).unlink(missing_ok=True)
        (tmp_path / path.name).symlink_to(path)
    with pytest.raises(BundleError, match=r"\.$"):
        read_bundle(tmp_path)


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path: Path) -> None:
    assert not is_bundle(tmp_path)
    with pytest.raises(BundleError, match="not a bundle, expected a folder with a manifest"):
        read_bundle(tmp_path)


def test_a_new_bundle_replaces_the_old_one_and_leaves_no_old_files(bundle: Bundle, copy: Path) -> None:
    manifest = {name: value for name, value in bundle.manifest.items() if name not in ("files", "sha256")}
    weights = next(bundle.folder.glob("weights-*")).read_bytes()
    again = write_bundle(
        copy,
        manifest | {"threshold": 0.75},
        graph=bundle.graph,
        weights=weights + b"",
        scales={},
        held_out=["x"],
        card="#",
    )
    assert again.threshold == 0.75
    assert again.scales == {}
    assert len(list(copy.glob("scales-*"))) == 1


def test_an_unwritable_folder_is_a_sentence(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="the bundle cannot be written"):
        write_bundle(tmp_path / "file", bundle.manifest, graph=b"", weights=b"", scales={}, held_out=[], card="")


def test_sessions_that_join_to_the_same_text_and_those_of_another_model_are_told_apart(
    bundle: Bundle, labelled: Labelled
) -> None:
    names = [("a", "bc", "m"), ("ab", "c", "m"), ("a", "bc", "n"), ("\ud800", "c", "m")]
    session, client, model = (np.array(column, object) for column in zip(*names, strict=True))
    sessions = replace(labelled.sessions.take(np.arange(4)), session=session, client=client, model=model)
    tested = replace(bundle, held_out=frozenset(session_keys(sessions.take(np.array([0])))))
    assert tested.holds_out(sessions).tolist() == [True, False, False, False]


def test_a_manifest_with_what_is_no_number_is_refused(copy: Path) -> None:
    text = (copy / MANIFEST).read_text("utf-8")
    (copy / MANIFEST).write_text(text.replace('"prior": ', '"prior": NaN, "was": ', 1), "utf-8")
    with pytest.raises(BundleError, match="changed after training"):
        read_bundle(copy)
