"""Bundles of a machine are found by their ids, whatever their folders are called."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from daemon.errors import BundleError
from daemon.model.bundle import WEIGHTS, Bundle
from daemon.model.shelf import Shelf
from tests.bundles import tiny_bundle


@pytest.fixture
def one(tmp_path: Path) -> Bundle:
    return tiny_bundle(tmp_path, seed=1, name="one")


@pytest.fixture
def two(tmp_path: Path) -> Bundle:
    return tiny_bundle(tmp_path, seed=2, name="two")


def test_a_bundle_is_found_as_the_configured_one_by_its_id_and_under_any_name(
    tmp_path: Path, one: Bundle, two: Bundle
) -> None:
    shelf = Shelf(one.path, tmp_path / "bundles")
    assert shelf.find(one.id) == one.path
    assert shelf.put(two) == shelf.find(two.id) == tmp_path / "bundles" / two.id
    (tmp_path / "bundles" / two.id).rename(tmp_path / "bundles" / "gold-lstm")
    assert shelf.find(two.id) == tmp_path / "bundles" / "gold-lstm"
    assert Bundle.load(shelf.find(two.id)).id == two.id


def test_one_that_is_not_there_is_named_with_the_places(tmp_path: Path, one: Bundle, two: Bundle) -> None:
    with pytest.raises(BundleError) as caught:
        Shelf(one.path, tmp_path / "bundles").find(two.id)
    for part in (two.id, str(one.path), str(tmp_path / "bundles")):
        assert part in str(caught.value)


def test_putting_mends_what_is_damaged_and_leaves_what_is_whole(tmp_path: Path, one: Bundle, two: Bundle) -> None:
    shelf = Shelf(one.path, tmp_path / "bundles")
    path = shelf.put(two)
    before = (path / WEIGHTS).stat().st_ino
    shelf.put(two)
    assert (path / WEIGHTS).stat().st_ino == before
    (path / WEIGHTS).write_bytes(b"damaged")
    shelf.put(two)
    assert Bundle.load(path).id == two.id


def test_a_damaged_source_leaves_nothing_behind(tmp_path: Path, one: Bundle, two: Bundle) -> None:
    (two.path / WEIGHTS).write_bytes(b"damaged")
    with pytest.raises(BundleError):
        Shelf(one.path, tmp_path / "bundles").put(two)
    assert list((tmp_path / "bundles").iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, one: Bundle) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match=r"set \[model\] bundles"):
        Shelf(one.path, tmp_path / "file" / "bundles").put(one)


def test_files_and_folders_that_hold_no_bundle_are_passed_over(tmp_path: Path, one: Bundle, two: Bundle) -> None:
    shelf = tmp_path / "bundles"
    (shelf / "empty").mkdir(parents=True)
    (shelf / "notes.txt").write_text("x")
    shutil.copytree(two.path, shelf / "z")
    assert Shelf(one.path, shelf).find(two.id) == shelf / "z"
