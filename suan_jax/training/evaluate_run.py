"""The evaluation job: a work directory's checkpoint, scored on a split."""

from __future__ import annotations

from pathlib import Path

from suan_jax.data.store import Store
from suan_jax.errors import UserError
from suan_jax.evaluation.evaluator import Scores
from suan_jax.training.checkpoint import Checkpoints
from suan_jax.training.evaluation import Evaluation
from suan_jax.training.setup import Setup, set_up
from suan_jax.training.state import TrainState
from suan_jax.training.workdir import read_config


def restore_run(workdir: Path) -> tuple[Setup, TrainState]:
    """The best checkpoint of a work directory (the newest if no metric chooses), on this machine's devices.

    Raises:
      UserError: if the directory holds no run, or no checkpoint yet.
    """
    setup = set_up(read_config(workdir))
    checkpoints = Checkpoints(workdir / "checkpoints", setup.config.checkpoint)
    try:
        restored = checkpoints.restore(setup.abstract, checkpoints.best_step())
    finally:
        checkpoints.close()
    if restored is None:
        raise UserError(f"{workdir} holds no checkpoint yet: train it first")
    return setup, restored[0]


def evaluate_run(workdir: Path, split: str, predictions: Path | None = None) -> dict[str, float]:
    """Evaluates a work directory's model on a split.

    Args:
      workdir: of a training run.
      split: "train", "validation" or "test".
      predictions: a Parquet file to write, with columns user (raw id where the store knows it), label and
        logit, in the order of the store.

    Returns:
      The metrics, as in summary.json.

    Raises:
      UserError: if the work directory, its log or the split is not right.
    """
    setup, state = restore_run(workdir)
    evaluation = Evaluation(setup)
    if predictions is None:
        return evaluation.metrics(state, split)
    scores = evaluation.scores(state, split)
    write_predictions(predictions, scores, setup)
    return scores.metrics()


def write_predictions(path: Path, scores: Scores, setup: Setup) -> None:
    """Writes user, label and logit of every example, at once.

    Raises:
      UserError: if the file cannot be written there.
    """
    import polars as pl  # training and plain evaluation do without

    frame = pl.DataFrame(
        {"user": scores.user, "label": scores.label.astype("int8"), "logit": scores.logit.astype("float32")}
    )
    log = setup.log
    if isinstance(log, Store) and (users := log.raw_users()) is not None:
        frame = frame.with_columns(user=users["raw"].gather(frame["user"]))
    temporary = path.with_name(path.name + ".tmp")
    try:
        frame.write_parquet(temporary)
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"cannot write the predictions to {path}: {error.strerror or error}") from error
