"""Saving a run and finding it again, through Orbax.

Each checkpoint holds the state, the position of the input iterator, the clock, the config, and checksums of
them all. Saves are asynchronous and atomic: a kill leaves the checkpoint before.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from suan_jax.errors import UserError
from suan_jax.notice import notice
from suan_jax.paths import is_remote, move_folder
from suan_jax.processes import by_first, is_first, wait_for_all
from suan_jax.training.checksums import digest, find_damage, write_checksums
from suan_jax.training.state import TrainState


def abstract_with_sharding(abstract: Any, shardings: Any) -> Any:
    """Shapes and dtypes of a tree joined with where its leaves shall live."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        abstract,
        shardings,
    )


_STATE_ITEMS = ("state", "companion")  # `TrainState.items`
_JSON_ITEMS = ("iterator", "clock", "config")  # beside them


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """Path to shape of every array but the random key, which is saved in a shape of its own."""
    leaves = jax.tree.leaves_with_path(tree)
    shapes = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in leaves}
    return {path: shape for path, shape in shapes.items() if path != "key"}


@dataclasses.dataclass
class _Keep(checkpoint_managers.PreservationPolicy):
    """Which checkpoints stay when one more is saved: the newest, and one by its step."""

    newest: int
    step: int | None = None

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        newest = {checkpoint.step for checkpoint in checkpoints[-self.newest :]}
        return [checkpoint.step in newest | {self.step} for checkpoint in checkpoints]


class _Manager(ocp.CheckpointManager):
    def reached_preemption(self, step: int) -> bool:
        # JAX is asked by `StopSignal`, with a count of its own that calls with steps would mix up.
        return False


class Checkpoints:
    """The checkpoints of one work directory."""

    def __init__(self, directory: Path, keep: int = 1, read_only: bool = False):
        """Opens `directory`.

        Args:
          directory: where the checkpoints lie, one folder a step; made if need be.
          keep: how many of the newest stay.
          read_only: for reading beside a run that may be writing: nothing is made, moved or removed.
        """
        self._directory = directory if is_remote(directory) else directory.absolute()
        self._read_only = read_only
        self._keep = _Keep(keep)
        self._saving: int | None = None
        states = {name: ocp.StandardCheckpointHandler() for name in _STATE_ITEMS}
        beside = {name: ocp.JsonCheckpointHandler() for name in _JSON_ITEMS}
        self._manager = _Manager(
            self._directory,
            item_handlers={**states, **beside},
            options=ocp.CheckpointManagerOptions(
                preservation_policy=self._keep,
                # Orbax calls this before it gives a checkpoint its final name.
                async_options=ocp.options.AsyncOptions(post_finalization_callback=self._seal),
                cleanup_tmp_directories=not read_only,
                create=not read_only,
                read_only=read_only,
            ),
        )

    def save(self, state: TrainState, iterator: dict, clock: dict, config: dict) -> None:
        """Starts saving `state` under its step, unless that step is there already.

        Args:
          state: the run's state; it may be donated as soon as this returns.
          iterator: what the run learns from, and the input iterator's position in it, JSON-ready.
          clock: the run's clock, JSON-ready.
          config: the run's config, JSON-ready.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        self.wait()
        self._saving = step
        states = {name: ocp.args.StandardSave(item) for name, item in state.items().items()}
        beside = dict(zip(_JSON_ITEMS, map(ocp.args.JsonSave, (iterator, clock, config)), strict=True))
        with self._naming_the_place():
            self._manager.save(step, args=ocp.args.Composite(**states, **beside))

    def _seal(self) -> None:
        if not is_first():  # which gives the checkpoint its final name as soon as it is sealed
            return
        for folder in (*self._directory.glob(f"{self._saving}"), *self._directory.glob(f"{self._saving}.*")):
            write_checksums(folder)

    def keep(self, step: int) -> None:
        """From now on the checkpoint of `step` stays beside the newest."""
        self._keep.step = step

    def steps(self) -> list[int]:
        """The steps of all checkpoints, ascending."""
        return sorted(self._manager.all_steps())

    def restore(self, abstract: TrainState, first: int | None = None) -> tuple[TrainState, dict] | None:
        """The newest sound checkpoint: its state, and its other items by name; None if there is none.

        A damaged checkpoint is set aside, and says so.

        Args:
          abstract: shapes, dtypes and shardings of the state.
          first: a step that is tried before the newest.

        Raises:
          UserError: if a sound checkpoint holds arrays of other shapes.
        """
        step = self._sound_step(first)
        if step is None:
            return None
        wanted = abstract.items()
        for name, item in wanted.items():
            self._check_shapes(step, name, item)
        states = {name: ocp.args.StandardRestore(item) for name, item in wanted.items()}
        beside = {name: ocp.args.JsonRestore() for name in _JSON_ITEMS}
        restored = self._manager.restore(step, args=ocp.args.Composite(**states, **beside))
        return abstract.of_items(restored), {name: restored[name] for name in _JSON_ITEMS}

    def restore_fields(
        self, fields: dict[str, Any], first: int | None = None
    ) -> tuple[dict[str, Any], dict, int] | None:
        """The same for some fields of the state; no other array is read.

        Args:
          fields: shapes, dtypes and shardings of these fields, by name.
          first: as in `restore`.

        Returns:
          The fields, the other items as in `restore`, and the step; None if there is no sound checkpoint.

        Raises:
          UserError: as `restore`.
        """
        step = self._sound_step(first)
        if step is None:
            return None
        self._check_shapes(step, "state", fields)
        wanted = ocp.args.PyTreeRestore(
            item=fields,
            restore_args=ocp.checkpoint_utils.construct_restore_args(fields),
            partial_restore=True,
        )
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            state = reader.restore(self._directory / str(step) / "state", args=wanted)
        beside = {name: ocp.args.JsonRestore() for name in _JSON_ITEMS}
        restored = self._manager.restore(step, args=ocp.args.Composite(**beside))
        return state, {name: restored[name] for name in _JSON_ITEMS}, step

    def digest(self, step: int) -> str:
        """What tells the checkpoint of `step` from others, in hexadecimal."""
        return digest(self._directory / str(step))

    def _sound_step(self, first: int | None) -> int | None:
        """The step of the newest sound checkpoint, or `first`; those found damaged are set aside."""
        for step in sorted(self.steps(), key=lambda step: (step == first, step), reverse=True):
            damage = by_first(functools.partial(find_damage, self._directory / str(step)))
            if not damage:
                return step
            self._set_aside(step, damage)
        return None

    def _check_shapes(self, step: int, item: str, abstract: TrainState | dict[str, Any]) -> None:
        """Checks that an item holds arrays of these shapes, and for a whole state no others."""
        metadata = self._manager.item_metadata(step)
        saved = _shapes(metadata[item].tree) if item in metadata else {}
        wanted = _shapes(abstract)
        names = set(wanted) if isinstance(abstract, dict) else {*saved, *wanted}
        different = sorted(name for name in names if saved.get(name) != wanted.get(name))
        if different:
            name = different[0]
            raise UserError(
                f"the checkpoint {self._directory / str(step)} is of another model or log, which may have "
                f"been prepared again: {len(different)} arrays differ, first {name}, "
                f"{saved.get(name, 'missing')} there and {wanted.get(name, 'missing')} here"
            )

    def _set_aside(self, step: int, damage: str) -> None:
        folder = self._directory / str(step)
        if self._read_only:
            notice(f"the checkpoint {folder} is damaged ({damage}) and left out")
            return
        aside = self._directory.parent / f"damaged_checkpoint_{step}"
        notice(f"the checkpoint {folder} is damaged ({damage}) and moved to {aside}")
        if is_first():
            move_folder(folder, aside)
        wait_for_all(f"{aside.name} is set aside")
        self._manager.reload()

    def wait(self) -> None:
        """Returns when every save has reached the disk; raises what went wrong with it."""
        with self._naming_the_place():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, then lets go of the directory."""
        with self._naming_the_place():
            self._manager.close()

    @contextlib.contextmanager
    def _naming_the_place(self) -> Iterator[None]:
        """Errors of a full disk say where, as those of the layers below do not."""
        try:
            yield
        except Exception as error:
            error.filename = str(self._directory)
            raise
