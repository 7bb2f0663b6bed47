import numpy as np
import pytest

from suan_jax.training.checksums import find_damage, write_checksums


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    for name, size in {"state/d/a": 40, "state/d/b": 1, "state/empty": 0, "iterator/metadata": 9}.items():
        path = tmp_path / "7" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.bytes(size))
    write_checksums(tmp_path / "7")
    return tmp_path / "7"


@pytest.mark.smoke
def test_any_changed_byte_is_noticed(folder):
    assert find_damage(folder) == ""
    for path in folder.rglob("*/*"):
        if path.is_file():
            content = path.read_bytes()
            for index in range(len(content)):
                path.write_bytes(content[:index] + bytes([content[index] ^ 1]) + content[index + 1 :])
                assert find_damage(folder) == f"{path.relative_to(folder)} is altered"
            path.write_bytes(content + b"\0")
            assert find_damage(folder) == f"{path.relative_to(folder)} is altered"
            path.unlink()
            assert find_damage(folder) == f"{path.relative_to(folder)} is missing"
            path.write_bytes(content)
    assert find_damage(folder) == ""


@pytest.mark.parametrize(
    ("content", "damage"),
    [
        (None, "checksums.json is missing"),
        ("{", "checksums.json is damaged"),
        ("[]", "checksums.json is damaged"),
    ],
)
def test_without_sound_checksums_nothing_is_trusted(folder, content, damage):
    (folder / "checksums.json").unlink()
    if content is not None:
        (folder / "checksums.json").write_text(content)
    assert find_damage(folder) == damage


def test_what_is_added_later_beside_the_items_is_left_alone(folder):
    (folder / "commit_success.txt").write_text("done")
    assert find_damage(folder) == ""
