"""The jobs that faults befall: how each is started, and what of its result must not depend on faults."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from tests.faults.job_spec import write_log
from tests.ports import free_port
from tests.training import runs
from tests.training.runs import ROOT

_HERE = Path(__file__).parent
_SPEED = {"seconds", "examples_per_second"}
Result = dict[str, Any]


class Job:
    """One of the jobs in a folder of its own.

    Attributes:
      name: "train", "sweep", "distill", "prepare", or "processes", a training job of two.
      folder: holds its raw log or its store, and on `disk`, which may be a mount, its `workdir`.
    """

    def __init__(self, name: str, folder: Path, shared: Path):
        self.name, self.folder, self._shared = name, folder, shared
        self.disk = folder / "disk"
        self.workdir, self.store = self.disk / "run", folder / "store"
        self.disk.mkdir(parents=True)
        self.put_store_back()

    def put_store_back(self) -> None:
        """The store as it was prepared."""
        if self.name != "prepare":
            shutil.rmtree(self.store, ignore_errors=True)
            shutil.copytree(self._shared / "store", self.store)

    def start(self, **environment: str) -> list[runs.Job]:
        """Starts its processes: the same command each time."""
        environment = {"PYTHONPATH": str(ROOT), **environment}
        environment.setdefault("JAX_COMPILATION_CACHE_DIR", str(self._shared / "xla"))
        environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        if self.name == "prepare":
            flags = ["--source=logs", f"--raw={self._shared / 'raw'}", f"--spec={_HERE / 'job_spec.py'}"]
            return [runs.Job(*flags, f"--out={self.workdir}", launch="prepare", **environment)]
        launch = "train" if self.name == "processes" else self.name
        config = f"--config={_HERE / 'job_config.py'}:store={self.store},job={launch}"
        flags, count = [config, f"--workdir={self.workdir}"], 1
        if self.name == "processes":
            count, environment["JAX_NUM_CPU_DEVICES"] = 2, "1"
            flags += [f"--coordinator=localhost:{free_port()}", f"--processes={count}"]
        own = [[f"--process={index}"] if count > 1 else [] for index in range(count)]
        return [runs.Job(*flags, *more, launch=launch, **environment) for more in own]

    def newest_checkpoint(self) -> Path | None:
        """The newest checkpoint of a run that has not finished."""
        found = [
            path
            for path in self.workdir.glob("**/checkpoints/*")
            if path.name.isdecimal() and not (path.parents[1] / "summary.json").exists()
        ]
        return max(found, key=lambda path: int(path.name), default=None)

    def result(self) -> Result:
        """What must be equal, by name."""
        result = {f"beside/{path.name}": "" for path in self.disk.iterdir()}
        if self.name == "prepare":
            files = [path for path in self.workdir.rglob("*") if path.is_file()]
            return result | {path.name: _digest(path.read_bytes()) for path in files}
        for config in self.workdir.glob("**/config.json"):
            name = str(config.parent.relative_to(self.workdir))
            result |= {f"{name}/{key}": value for key, value in _run_result(config.parent).items()}
        if self.name == "sweep":
            rows = list(csv.DictReader((self.workdir / "runs.csv").read_text().splitlines()))
            result["runs.csv"] = [_without_speed(row) for row in rows]
        return result


def prepare_shared(shared: Path) -> None:
    """Makes what the jobs share: the raw log and its store."""
    write_log(shared / "raw")
    job = Job("prepare", shared / "preparation", shared)
    ended = job.start()[0].end()
    assert ended.returncode == 0, ended.stderr
    job.workdir.rename(shared / "store")


def _run_result(workdir: Path) -> Result:
    names = [path.name for path in workdir.iterdir() if not path.name.startswith("damaged_checkpoint_")]
    # Where a run stopped tells which checkpoint stays beside the last.
    saved = [path.name for path in (workdir / "checkpoints").iterdir() if not path.name.isdecimal()]
    last = max((path for path in (workdir / "checkpoints").glob("[0-9]*")), key=lambda path: int(path.name))
    state = {name: _arrays(last / name) for name in ("state", "companion") if (last / name).is_dir()}
    summary = json.loads((workdir / "summary.json").read_text())
    return {
        "files": sorted(names),
        "half-written": saved,
        "last step": last.name,
        "iterator": json.loads((last / "iterator" / "metadata").read_text()),
        "summary": _without_speed(summary),
        **{f"row {row['step']} {row.get('split', '')}": row for row in runs.rows(workdir)},
        "rows": [(row["step"], row.get("split")) for row in runs.rows(workdir)],
        **{f"{name}{path}": digest for name, tree in state.items() for path, digest in tree.items()},
    }


def _arrays(folder: Path) -> dict[str, str]:
    """Path to digest of every array of a checkpoint's item, whatever devices wrote it."""
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        tree = reader.metadata(folder).item_metadata.tree
        plain = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        arrays = reader.restore(folder, args=ocp.args.PyTreeRestore(restore_args=plain))
    leaves = jax.tree.leaves_with_path(arrays)
    return {jax.tree_util.keystr(path): _digest(np.asarray(leaf).tobytes()) for path, leaf in leaves}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _without_speed(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in _SPEED}
