"""Saving a run and finding it again, through Orbax.

Each checkpoint holds the state, the position of the input iterator and the config. Saves are asynchronous
and atomic: a kill leaves the checkpoint before.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging
from orbax.checkpoint import checkpoint_managers

from suan_jax.config import CheckpointConfig
from suan_jax.training.state import TrainState

HIGHER_IS_BETTER = {"auc": True, "gauc": True, "log_loss": False}


def abstract_with_sharding(abstract: Any, shardings: Any) -> Any:
    """Shapes and dtypes of a tree joined with where its leaves shall live."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        abstract,
        shardings,
    )


class Checkpoints:
    """The checkpoints of one work directory."""

    def __init__(self, directory: Path, config: CheckpointConfig):
        """Opens `directory`, making it if need be.

        Args:
          directory: where the checkpoints lie, one folder a step.
          config: how many to keep, and by which metric the best is chosen.
        """
        self._directory = directory
        self._best = config.best
        keep = [checkpoint_managers.LatestN(config.keep)]
        if config.best:
            keep.append(
                checkpoint_managers.BestN(
                    get_metric_fn=self._metric, n=1, keep_checkpoints_without_metrics=False
                )
            )
        self._manager = ocp.CheckpointManager(
            directory.absolute(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=checkpoint_managers.AnyPreservationPolicy(keep),
                best_fn=self._metric if config.best else None,
                cleanup_tmp_directories=True,
            ),
        )

    def _metric(self, metrics: Mapping[str, float]) -> float:
        value = metrics[self._best]
        return value if HIGHER_IS_BETTER[self._best] else -value

    def save(
        self, state: TrainState, iterator: dict, config: dict, metrics: Mapping[str, float] | None = None
    ) -> None:
        """Starts saving `state` under its step, unless that step is there already.

        Args:
          state: the run's state; it may be donated as soon as this returns.
          iterator: the input iterator's position, JSON-ready.
          config: the run's config, JSON-ready.
          metrics: of the evaluation made at this step, if one was made.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                iterator=ocp.args.JsonSave(iterator),
                config=ocp.args.JsonSave(config),
            ),
            metrics=dict(metrics) if metrics else None,
        )

    def restore(self, abstract: TrainState, step: int | None = None) -> tuple[TrainState, dict] | None:
        """The state and iterator position of the newest checkpoint that can be read, or None.

        A checkpoint that cannot be read is set aside, with a warning, and the one before it is tried.

        Args:
          abstract: shapes, dtypes and shardings of the state.
          step: the one step wanted; by default the newest.
        """
        steps = sorted(self._manager.all_steps(), reverse=True) if step is None else [step]
        for candidate in steps:
            try:
                restored = self._manager.restore(
                    candidate,
                    args=ocp.args.Composite(
                        state=ocp.args.StandardRestore(abstract), iterator=ocp.args.JsonRestore()
                    ),
                )
                return restored["state"], restored["iterator"]
            except Exception as error:  # whatever a damaged file provokes in the layers below
                if step is not None:
                    raise
                self._set_aside(candidate, error)
        return None

    def _set_aside(self, step: int, error: Exception) -> None:
        folder = self._directory / str(step)
        aside = self._directory.parent / f"damaged_checkpoint_{step}"
        logging.warning(
            "checkpoint %s cannot be read (%s: %s); it is moved to %s and the one before it is used",
            folder,
            type(error).__name__,
            str(error).splitlines()[0][:200] if str(error) else "no message",
            aside,
        )
        if jax.process_index() == 0:
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)
        self._manager.reload()

    def best_step(self) -> int | None:
        """The step of the best checkpoint by the chosen metric; the newest if none is chosen or measured."""
        best = self._manager.best_step() if self._best else None
        return self.latest_step() if best is None else best

    def latest_step(self) -> int | None:
        """The step of the newest checkpoint, or None."""
        return self._manager.latest_step()

    def wait(self) -> None:
        """Returns when every save has reached the disk; raises what went wrong with it."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, then lets go of the directory."""
        self._manager.close()
