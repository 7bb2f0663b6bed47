"""What sharding_test.py does in processes of one and of eight devices.

python mesh_run.py FOLDER NAME DATA,MODEL OTHER: for each model, in its folder, trains on a mesh of those
sizes to a checkpoint NAME and on; goes on from the checkpoint OTHER, if there is one; writes what it saw.
"""

import json
import sys
from pathlib import Path

import jax

from suan_jax.training.checkpoint import Checkpoints
from suan_jax.training.setup import set_up
from tests.training.runs import take_steps, tiny

MIDDLE, STEPS = 10, 20
# A small learning rate, as Adam's first steps magnify rounding; one model has sizes that 2 does not divide.
MODELS = {
    "din": ("optimizer.learning_rate=1e-4", "model.head=(7,)"),
    "suan": ("optimizer.learning_rate=1e-4",),
}


def main(folder: Path, name: str, mesh: str, other: str) -> None:
    for model, overrides in MODELS.items():
        data, split = mesh.split(",")
        setup = set_up(
            tiny(f"mesh.data={data}", f"mesh.model={split}", *overrides, arguments=f"model={model}")
        )
        step = setup.compile_step()
        seen = {"devices": jax.device_count()}
        if not (folder / model / name).exists():
            state, first = take_steps(setup, step, setup.fresh_state(), 0, MIDDLE)
            checkpoints = Checkpoints(folder / model / name)
            checkpoints.save(state, {}, {}, {})
            state, second = take_steps(setup, step, state, MIDDLE, STEPS)
            checkpoints.close()
            seen |= {"losses": first + second, "pieces": _pieces(state)}
        if (folder / model / other).exists():
            checkpoints = Checkpoints(folder / model / other, read_only=True)
            state, _ = checkpoints.restore(setup.abstract)
            checkpoints.close()
            seen["resumed"] = take_steps(setup, step, state, MIDDLE, STEPS)[1]
        (folder / model / f"{name}_after_{other}.json").write_text(json.dumps(seen))


def _pieces(state) -> dict:
    """Path to the shape of each array and of its piece on one device."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): [
            list(leaf.shape),
            list(leaf.sharding.shard_shape(leaf.shape)),
        ]
        for path, leaf in jax.tree.leaves_with_path(state)
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
