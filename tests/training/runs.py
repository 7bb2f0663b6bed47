"""Training jobs for tests, in this process and as their users start them."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from suan_jax import config_file
from suan_jax.config import Config
from suan_jax.training.checkpoint import Checkpoints
from suan_jax.training.setup import Setup, set_up
from suan_jax.training.sharding import place_batch
from suan_jax.training.state import TrainState
from suan_jax.training.step import TrainStep

ROOT = Path(__file__).parents[2]
CONFIG = Path(__file__).with_name("tiny_config.py")


def tiny(*overrides: str, arguments: str = "") -> Config:
    """The tiny config, with overrides such as "train.steps=5" and arguments such as "model=suan"."""
    return config_file.load_config([f"--config={CONFIG}:{arguments}", *map("--config.{}".format, overrides)])


class Job:
    """launch/train.py, or another launch file, as a process of its own."""

    def __init__(self, *arguments: str, launch: str = "train", **environment: str):
        command = [sys.executable, str(ROOT / "launch" / f"{launch}.py"), *arguments]
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", **environment}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment)

    def until(self, condition: Callable[[], bool], number: signal.Signals, timeout: float = 120) -> Job:
        """Sends a signal as soon as a condition holds."""
        deadline = time.monotonic() + timeout
        while not condition():
            assert self.process.poll() is None, "it ended before:\n" + self.process.stderr.read()
            if time.monotonic() > deadline:
                self.process.kill()
                raise AssertionError("it never came to that:\n" + self.process.stderr.read())
            time.sleep(0.001)
        self.process.send_signal(number)
        return self

    def end(self, timeout: float = 120) -> subprocess.CompletedProcess:
        """Waits for the end."""
        out, err = self.process.communicate(timeout=timeout)
        return subprocess.CompletedProcess(self.process.args, self.process.returncode, out, err)


def train_arguments(workdir: Path, *overrides: str, arguments: str = "") -> list[str]:
    """The command line that trains the tiny config."""
    return [f"--config={CONFIG}:{arguments}", f"--workdir={workdir}", *map("--config.{}".format, overrides)]


def rows(workdir: Path) -> list[dict[str, Any]]:
    """The whole rows of metrics.jsonl, without the speed."""
    path = workdir / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [{k: v for k, v in json.loads(line).items() if k != "examples_per_second"} for line in lines]


def last_state(workdir: Path, setup: Setup | Config) -> tuple[TrainState, dict]:
    """The newest checkpoint: its state, and the items beside it."""
    setup = set_up(setup) if isinstance(setup, Config) else setup
    checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
    try:
        return checkpoints.restore(setup.abstract)
    finally:
        checkpoints.close()


def take_steps(
    setup: Setup, step: TrainStep, state: TrainState, start: int, stop: int
) -> tuple[TrainState, list[float]]:
    """Trains from one step to another: the state, which is donated, and the losses."""
    losses = []
    for index, batch in enumerate(itertools.islice(setup.train_iterator(), stop)):
        if index >= start:
            state, metrics = step(state, place_batch(setup.mesh, batch))
            losses.append(float(metrics["loss"]))
    return state, losses


def arrays(state: Any) -> dict[str, np.ndarray]:
    """Path to a copy of every array, keys as their data."""

    def plain(leaf: jax.Array) -> np.ndarray:
        is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return np.array(jax.random.key_data(leaf) if is_key else leaf)

    return {jax.tree_util.keystr(path): plain(leaf) for path, leaf in jax.tree.leaves_with_path(state)}


def assert_same_bits(got: Any, expected: Any) -> None:
    """Every array of two trees is the same to the last bit."""
    got, expected = arrays(got), arrays(expected)
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        assert got[name].dtype == array.dtype, name
        assert got[name].tobytes() == array.tobytes(), name
