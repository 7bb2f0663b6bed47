"""Work directories of models that look trained, and the requests that the examples of a log stand for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from suan_jax.config import Config
from suan_jax.config_dict import to_dict
from suan_jax.data.block import Log
from suan_jax.files import write_json
from suan_jax.schema import SPLITS
from suan_jax.serving import User
from suan_jax.training.checkpoint import Checkpoints
from suan_jax.training.setup import set_up


def write_run(workdir: Path, config: Config) -> Path:
    """A work directory with one checkpoint: nothing was trained, but every weight is far from its start."""
    workdir.mkdir(parents=True)
    write_json(workdir / "config.json", to_dict(config))
    setup = set_up(config)
    state = setup.fresh_state()
    rng = np.random.default_rng(0)

    def moved(tree, noise):
        return jax.tree.map(lambda x: x + noise * rng.normal(size=x.shape).astype(x.dtype), tree)

    # A row that was never trained would read as an unknown id; here those of odd ids were.
    accumulators = {name: x.at[3::2].add(1.0) for name, x in state.accumulators.items()}
    state = state.replace(
        params=moved(state.params, 0.2), tables=moved(state.tables, 0.7), accumulators=accumulators
    )
    checkpoints = Checkpoints(workdir / "checkpoints", keep=1)
    checkpoints.save(
        state.replace(step=jax.numpy.int32(1)), {"log": setup.log.fingerprint}, {}, to_dict(config)
    )
    checkpoints.close()
    return workdir


def synthetic_requests(log: Log, split: str, index: int = 0) -> Iterator[tuple[User, dict]]:
    """The impressions of a split of a synthetic log's block, in its order, as requests of one candidate."""
    block = log.block(index)
    sequence = np.repeat(np.arange(len(block.user)), np.diff(block.impression_offsets))

    def at(columns: dict, place: int) -> dict:
        return {name: int(ids[place]) for name, ids in columns.items()}

    for place in np.flatnonzero(block.split == SPLITS.index(split)):
        user = sequence[place]
        events = range(*block.event_offsets[[user, user + 1]])  # the later ones, too
        history = [{**at(block.event, event), "time": int(block.event_time[event])} for event in events]
        yield (
            User(
                time=int(block.time[place]),
                history=history,
                profile=at(block.profile, user),
                context=at(block.context, place),
            ),
            {**at(block.candidate, place), "freshness": float(block.dense[place, 0])},
        )
