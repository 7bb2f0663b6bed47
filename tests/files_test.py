import json
import math
import os

import numpy as np
import pytest

from suan_jax.errors import UserError
from suan_jax.files import read_json, write_array, write_bytes, write_json


@pytest.mark.smoke
def test_json_is_written_whole_with_null_for_what_it_lacks(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"x": [1.5, math.nan, (math.inf, "y")], "z": None})
    assert json.loads(path.read_text()) == {"x": [1.5, None, [None, "y"]], "z": None}
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, 1)
    with pytest.raises(TypeError):
        write_json(path, {"x": object()})
    assert read_json(path) == 1
    blocked = tmp_path / "b.json"
    blocked.mkdir()
    with pytest.raises(UserError, match=r"cannot write .*/b\.json: Is a directory"):
        write_json(blocked, 2)
    assert sorted(os.listdir(tmp_path)) == ["a.json", "b.json"]


def test_an_array_comes_back(tmp_path):
    array = np.arange(5, dtype=np.float32)
    write_array(tmp_path / "x.npy", array)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), array)
    assert os.listdir(tmp_path) == ["x.npy"]


def test_two_writers_of_one_file_do_not_meet(tmp_path, monkeypatch):
    """The second writes all of it while the first is about to rename."""
    path, sync = tmp_path / "x", os.fsync

    def meanwhile(descriptor):
        monkeypatch.setattr(os, "fsync", sync)
        write_bytes(path, b"second")

    monkeypatch.setattr(os, "fsync", meanwhile)
    write_bytes(path, b"first")
    assert path.read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["x"]
