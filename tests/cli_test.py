import functools
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from suan_jax.errors import full_disk

_JOB = '''
"""Does a job.

It takes a while.
"""
import threading
import time
from absl import flags
from suan_jax import cli
from suan_jax.errors import Preempted, UserError

_ENDS = ["nothing", "mistake", "preempt", "bug", "fill", "far", "hoard", "wait", "return"]
_DO = flags.DEFINE_enum("do", "nothing", _ENDS, "What.")
_PORT = flags.DEFINE_integer("port", 8000, "Where it listens.", lower_bound=1)
_DRY = flags.DEFINE_bool("dry_run", False, "Only says what it would do.")
_OUT = flags.DEFINE_string("out", None, "Directory for the results.", required=True)

def main(argv):
    assert len(argv) == 1
    if _DO.value == "mistake":
        raise UserError("column 'item' of\\n  log.csv is missing")
    if _DO.value == "preempt":
        raise Preempted("stopped at step 3: repeat the command")
    if _DO.value == "bug":
        raise ValueError("oh")
    if _DO.value == "fill":
        with open("/dev/full", "w", buffering=1) as file:
            file.write("x\\n")
    if _DO.value == "far":
        open("x" * 300)
    if _DO.value == "hoard":
        raise MemoryError("9 GiB")
    if _DO.value == "wait":
        threading.Thread(target=time.sleep, args=(60,)).start()  # as XLA's, which compile
        print("ready", flush=True)
        time.sleep(60)
    print("port", _PORT.value)
    return 7 if _DO.value == "return" else None

if __name__ == "__main__":
    cli.run(main)
'''


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    path = tmp_path_factory.mktemp("launch") / "job.py"
    path.write_text(_JOB)

    def run(*argv):
        command = [sys.executable, str(path), *argv]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    run.path = str(path)
    return run


@pytest.mark.smoke
def test_a_job_that_is_done_exits_with_zero_or_its_own_code(job):
    done = job("--out=x", "--port", "9")
    assert (done.returncode, done.stdout, done.stderr) == (0, "port 9\n", "")
    assert job("--out=x", "--do=return").returncode == 7


@pytest.mark.parametrize(
    ("argv", "code", "sentence"),
    [
        (["--do=mistake"], 2, "error: column 'item' of log.csv is missing"),
        (["--do=preempt"], 75, "stopped at step 3: repeat the command"),
        (["--do=fill"], 2, "error: No space left on device: free some space and repeat the command"),
        (["--do=far"], 2, f"error: '{'x' * 27}...{'x' * 28}' is no path: File name too long"),
        (["--do=hoard"], 2, "error: memory is not enough (9 GiB): ask for less"),
        (["--port=abc"], 2, "error: --port is 'abc', expected a positive integer"),
        (["--port=0"], 2, "error: --port is '0', expected a positive integer"),
        (["--prot=80"], 2, "error: --prot is not a flag, the nearest is --port"),
        (
            ["--do=all"],
            2,
            "error: --do is 'all', expected one of nothing, mistake, preempt, bug, fill, far, hoard, wait, "
            "return",
        ),
        (["x.csv"], 2, "error: 'x.csv' is not expected here: every argument is a flag, --NAME=VALUE"),
    ],
)
def test_what_the_user_can_mend_is_one_sentence(job, argv, code, sentence):
    result = job("--out=x", *argv)
    assert (result.returncode, result.stdout) == (code, "")
    assert result.stderr == sentence + "\n"


def test_a_missing_flag_says_what_it_is_for(job):
    result = job()
    assert result.returncode == 2
    assert result.stderr == "error: --out is missing: Directory for the results.\n"


def test_a_bug_shows_its_traceback(job):
    result = job("--out=x", "--do=bug")
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert "ValueError: oh" in result.stderr


def test_a_reader_that_has_seen_enough_ends_the_job_quietly(job):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-u", job.path, "--out=x"]
    result = subprocess.run(
        command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60, check=False
    )
    os.close(writer)
    assert (result.returncode, result.stderr) == (141, "")


def test_an_interrupt_exits_as_the_shell_expects(job):
    command = [sys.executable, job.path, "--out=x", "--do=wait"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        os.kill(process.pid, signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
    assert (process.returncode, stderr) == (130, "interrupted\n")


@pytest.mark.smoke
def test_help_shows_the_docstring_and_the_jobs_own_flags(job):
    result = job("--port=abc", "--help")
    expected = """\
        Does a job.

        It takes a while.

        Flags:
          --do=VALUE
              <nothing|mistake|preempt|bug|fill|far|hoard|wait|return>: What. (default: nothing)
          --port=VALUE
              Where it listens. (default: 8000)
          --[no]dry_run
              Only says what it would do. (default: False)
          --out=VALUE
              Directory for the results.
        """
    assert result.stdout == textwrap.dedent(expected)
    assert (result.returncode, result.stderr) == (0, "")


def test_a_full_disk_is_found_behind_other_errors():
    reason = "No space left on device: free some space and repeat the command"
    try:
        try:
            raise OSError(28, "No space left on device", "runs/x/metrics.jsonl")
        except OSError as error:
            raise RuntimeError("saving failed") from error
    except RuntimeError as error:
        assert full_disk(error) == f"cannot write runs/x/metrics.jsonl: {reason}"
    text = ValueError("RESOURCE_EXHAUSTED: writing d/0: [OS error 28: No space left on device]")
    assert full_disk(text) == reason
    assert full_disk(ValueError("oh")) == ""


_TRAIN = '''
"""Trains."""
from suan_jax import cli, config_file

_CONFIG = config_file.define_config()

def main(_):
    print(type(_CONFIG.value.model).__name__, _CONFIG.value.train.steps, config_file.default_workdir())

if __name__ == "__main__":
    cli.run(main)
'''

_CONFIG = """
import dataclasses
from suan_jax.config import Config
from suan_jax.models import ModelDefinition, register

@register
@dataclasses.dataclass
class Other(ModelDefinition):
    name: str = "other"
    depth: int = 1

def get_config(steps: int = 1):
    config = Config(model=Other())
    config.train.steps = steps
    return config
"""


def test_a_launch_file_reads_its_config(tmp_path):
    (tmp_path / "train.py").write_text(_TRAIN)
    (tmp_path / "mine.py").write_text(_CONFIG)

    def run(*argv):
        command = [sys.executable, str(tmp_path / "train.py"), *argv]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path)

    done = run("--config=mine.py:steps=5", "--config.model.name=other", "--config.model.depth=3")
    assert (done.returncode, done.stdout) == (0, "Other 5 runs/mine\n"), done.stderr
    wrong = run("--config=mine.py", "--config.model.dept=3")
    assert wrong.returncode == 2
    assert wrong.stderr == "error: config.model.dept is not a field, the nearest is config.model.depth\n"
    typed = run("--config=mine.py", "--config.train.steps=abc")
    assert typed.stderr == "error: config.train.steps is 'abc', expected an integer\n"
    missing = run("--config.train.steps=3")
    assert missing.returncode == 2
    assert missing.stderr.startswith(
        "error: --config.train.steps changes a value of --config, which is missing"
    )
    shown = run("--help")
    assert shown.returncode == 0
    assert shown.stdout.startswith("Trains.\n\nFlags:\n  --config=VALUE\n")
    assert "--jax" not in shown.stdout


def test_what_stands_behind_two_dashes_is_passed_on_where_asked_for(tmp_path):
    path = tmp_path / "job.py"
    path.write_text(
        "from absl import flags\nfrom suan_jax import cli\n"
        "_PORT = flags.DEFINE_integer('port', 1, 'Where.')\n"
        "cli.run(lambda argv: print(_PORT.value, argv[1:]), passes_on=True)\n"
    )
    run = functools.partial(subprocess.run, capture_output=True, text=True, timeout=60, check=False)
    done = run([sys.executable, str(path), "--port=3", "--", "--port=x", "--help", "y"])
    assert (done.returncode, done.stdout) == (0, "3 ['--port=x', '--help', 'y']\n"), done.stderr
    done = run([sys.executable, str(path), "y", "--", "x"])
    assert done.returncode == 2 and "'y' is not expected here" in done.stderr
