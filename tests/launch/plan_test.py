import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]


def _plan(*arguments):
    command = [sys.executable, ROOT / "launch" / "plan.py", f"--config={ROOT}/configs/suan.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_a_plan_is_printed():
    done = _plan("--devices=256", "--rows=item=2000000000,brand=1000000000", "--least=100000000")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "the state on each of 256 devices, data 256 x model 1"
    assert lines[2].split() == "tables/item 2000000000 x 8 float32 data, - 250000000 238.4 MiB".split()
    assert lines[-1].startswith("3,000,0") and "bytes per device" in lines[-1]


def test_a_mistake_is_one_sentence():
    for flags, sentence in (
        (["--devices=256", "--rows=item"], "--rows=item is not of the form TABLE=COUNT"),
        (["--devices=256", "--rows=item=2147483648"], "--rows=item=2147483648 is out of range"),
        (
            ["--devices=999999999999"],
            "--devices is '999999999999', expected an integer in the range [1, 2147483647]",
        ),
        (["--devices=3"], "config.train.batch_size is 256, expected a multiple of the 3 devices along"),
    ):
        done = _plan(*flags)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1 and sentence in done.stderr
