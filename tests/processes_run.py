"""What processes_test.py does in one of several processes that never train.

python processes_run.py FOLDER PORT COUNT INDEX: lays the batches of a numbered log out on meshes of all kinds
and writes what it gathered of them.
"""

import json
import sys
from pathlib import Path

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from suan_jax import processes
from suan_jax.config import DataConfig
from suan_jax.data.pipeline import evaluation_batches, train_iterator
from suan_jax.errors import JobEnd, Unreached, UserError
from suan_jax.training.sharding import gather_rows, own_shards, place_batch
from tests.data.pipeline_test import numbered, numbers
from tests.data.random_log import random_log

BATCH = 16


def main(folder: Path) -> None:
    log = numbered(random_log(11, blocks=13))
    data = DataConfig(max_len=6, window=3)
    epoch = len(numbers(log, 0))
    seen = {"epoch": epoch, "shards": {}, "ids": {}}
    devices = np.array(jax.devices())
    meshes = {
        "in order": devices[:, None],
        "interleaved": devices.reshape(2, -1).T.reshape(-1, 1),
        "model within a process": devices.reshape(-1, 2),
        "model across processes": devices.reshape(2, -1).T,
        "model alone": devices[None],
    }
    for name, layout in meshes.items():
        mesh = Mesh(layout, ("data", "model"), axis_types=(AxisType.Auto,) * 2)
        shards, count = own_shards(mesh)
        seen["shards"][name] = [list(shards), count]
        own = train_iterator(log, data, BATCH, 0, shards, count)
        whole = train_iterator(log, data, BATCH, 0)
        ids = []
        for _ in range(-(-epoch // BATCH)):
            batch, expected = next(own), next(whole)
            placed = place_batch(mesh, batch)
            # The labels as the devices hold them, and the ids as they are gathered.
            label = gather_rows(mesh, batch.label)
            np.testing.assert_array_equal(label, expected.label)
            for piece in placed.label.addressable_shards:
                np.testing.assert_array_equal(piece.data, expected.label[piece.index])
            ids += gather_rows(mesh, batch.dense)[:, 0, 0].astype(int).tolist()
        seen["ids"][name] = ids[:epoch]
        for item, expected in zip(
            evaluation_batches(log, "test", BATCH, 6, shards, count),
            evaluation_batches(log, "test", BATCH, 6),
            strict=True,
        ):
            user = gather_rows(mesh, item.user + 2**40)  # that 32 bits do not hold
            np.testing.assert_array_equal(user, expected.user + 2**40)
    seen["told"] = processes.by_first(lambda: f"by {jax.process_index()}")
    for what, act in {
        "refused": lambda: processes.by_first(lambda: _end(UserError)),
        "unreached": lambda: processes.by_first(lambda: _end(Unreached)),
        "differs": lambda: processes.check_same(str(_own()), "it"),
    }.items():
        try:
            act()
        except JobEnd as error:
            seen[what] = [str(error), error.exit_code]
    (folder / f"{_own()}.json").write_text(json.dumps(seen))


def _own() -> int:
    return jax.process_index()


def _end(end: type[JobEnd]) -> None:
    raise end(f"no, says {_own()}")


if __name__ == "__main__":
    jax.distributed.initialize(f"localhost:{sys.argv[2]}", int(sys.argv[3]), int(sys.argv[4]))
    main(Path(sys.argv[1]))
