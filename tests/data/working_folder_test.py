import pytest

from suan_jax.data.working_folder import working_folder
from suan_jax.errors import UserError


def test_a_folder_is_gone_at_the_end_and_after_an_error(tmp_path):
    with working_folder(tmp_path / "new" / "store", "rows") as folder:
        assert folder.parent == tmp_path / "new"
        (folder / "file").touch()
    assert not list((tmp_path / "new").iterdir())
    with pytest.raises(KeyError), working_folder(tmp_path / "new" / "store", "rows"):
        raise KeyError
    assert not list((tmp_path / "new").iterdir())


@pytest.mark.smoke
def test_what_a_kill_left_is_removed_and_what_another_job_holds_is_not(tmp_path):
    left, other = tmp_path / ".store.1.rows", tmp_path / ".other.1.rows"
    for folder in (left, other):
        (folder / "inside").mkdir(parents=True)
    with working_folder(tmp_path / "store", "rows") as held:
        assert not left.exists()
        moved = held.rename(tmp_path / ".store.2.rows")  # as if it were of another process
        with working_folder(tmp_path / "store", "rows"):
            assert moved.exists()
        moved.rename(held)
    assert [path.name for path in tmp_path.iterdir()] == [other.name]


def test_a_place_that_takes_no_folder_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write \S+store: "):
        with working_folder(tmp_path / "file" / "store", "rows"):
            raise AssertionError
