import subprocess

import pytest

from suan_jax.training.setup import set_up
from tests.training.runs import Job, last_state, rows, tiny, train_arguments

_OVERRIDES = ("train.steps=40", "checkpoint.keep=20")


@pytest.fixture
def disk(tmp_path):
    """A disk of 2 MiB, and a function that makes it larger."""
    mount = ["mount", "-t", "tmpfs", "-o"]
    if subprocess.run([*mount, "size=2m", "tmpfs", str(tmp_path)], capture_output=True).returncode:
        pytest.skip("this user may not mount a disk")
    yield tmp_path, lambda: subprocess.run([*mount, "remount,size=32m", "tmpfs", str(tmp_path)], check=True)
    subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_full_disk_ends_the_job_with_a_sentence_and_more_space_lets_it_go_on(disk):
    folder, enlarge = disk
    workdir = folder / "run"
    command = train_arguments(workdir, *_OVERRIDES)
    full = Job(*command).end()
    assert full.returncode == 2, full.stderr
    place = workdir / "checkpoints"
    sentence = f"error: cannot write {place}: No space left on device: free some space and repeat the command"
    lines = full.stderr.splitlines()
    assert lines[-1] == sentence, full.stderr
    assert all(line.startswith(("training: ", "compiling ")) for line in lines[:-1]), full.stderr
    enlarge()
    setup = set_up(tiny(*_OVERRIDES))
    saved = int(last_state(workdir, setup)[0].step)
    assert saved >= 5
    done = Job(*command).end()
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[0] == f"{workdir} goes on at step {saved} of 40"
    assert [row["step"] for row in rows(workdir)] == [*range(1, 41), 40]
