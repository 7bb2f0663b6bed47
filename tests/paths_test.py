import importlib.util
from pathlib import Path

import pytest

from suan_jax.errors import UserError
from suan_jax.paths import check_local, files_below, is_remote, move_folder, path_of


@pytest.mark.smoke
@pytest.mark.parametrize("path", ["runs/a", "/runs/gs:/a", ".", "gs", "a://b"])
def test_directories_are_pathlibs(path):
    assert path_of(path) == Path(path)
    assert type(path_of(path)) is type(Path(path))
    assert path_of(Path(path)) == Path(path)
    assert not is_remote(path_of(path))
    check_local(path)


@pytest.mark.parametrize("address", ["s3://bucket/runs/a", "az://bucket", "gs:/bucket/a"])
def test_other_object_stores_are_refused_by_their_names(address):
    expected = f"^{address} is in an object store, expected a directory, or gs://BUCKET/PATH; "
    with pytest.raises(UserError, match=expected):
        path_of(address)
    with pytest.raises(UserError, match=f"^{address.replace(':/b', '://b')} is in an object store"):
        check_local(Path(address))


@pytest.mark.parametrize(
    "address", ["gs://", "gs:///a", "gs://Bucket/a", "gs://b/a", "gs://bucket/a?b", "gs://bucket/*"]
)
def test_what_is_no_address_is_refused(address):
    with pytest.raises(UserError, match="is no address, expected gs://BUCKET/PATH"):
        path_of(address)


def test_gs_asks_for_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"gs://bucket/a is reached by, is not installed: .*\[gcs\]"):
        path_of("gs://bucket/a")


def test_a_folder_is_listed_and_moved_onto_another(tmp_path):
    for name in ("a/x.json", "a/b/c/y.json", "a/b/z", "old/w"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert sorted(files_below(tmp_path / "a", "*.json")) == [tmp_path / "a/b/c/y.json", tmp_path / "a/x.json"]
    move_folder(tmp_path / "a", tmp_path / "old")
    names = sorted(file.relative_to(tmp_path).as_posix() for file in files_below(tmp_path))
    assert names == ["old/b/c/y.json", "old/b/z", "old/x.json"]
