"""The evaluation job: a work directory's checkpoint, scored on a split."""

from __future__ import annotations

from pathlib import Path

from suan_jax.data.block import Log
from suan_jax.data.store import Store
from suan_jax.errors import UserError
from suan_jax.evaluation.evaluator import Scores
from suan_jax.paths import check_local
from suan_jax.processes import is_first
from suan_jax.training.compilation import enable_compilation_cache
from suan_jax.training.evaluation import Evaluation
from suan_jax.training.restore import restore_run


def evaluate_run(
    workdir: Path, split: str, predictions: Path | None = None, loops: int | None = None
) -> dict[str, float]:
    """Evaluates a work directory's model on a split.

    Args:
      workdir: of a training run.
      split: "train", "validation" or "test".
      predictions: a Parquet file to write, with columns user (raw id where the store knows it), label and
        logit, in the order of the store.
      loops: calls of a looped model's block; None for as many as its config says.

    Returns:
      The metrics, as in summary.json.

    Raises:
      UserError: if the work directory, its log, the split or the loops are not right.
    """
    if predictions is not None and predictions.suffix != ".parquet":
        raise UserError(f"the predictions' file is {predictions}, expected a name that ends in .parquet")
    if predictions is not None:
        check_local(predictions, "a file")
    if predictions is not None and not predictions.parent.is_dir():
        raise UserError(
            f"cannot write the predictions to {predictions}: {predictions.parent} is no directory"
        )
    enable_compilation_cache()
    setup, state = restore_run(workdir)
    evaluation = Evaluation(setup, loops)
    if predictions is None:
        return evaluation.metrics(state, split)
    scores = evaluation.scores(state, split)
    if is_first():
        write_predictions(predictions, scores, setup.log)
    return scores.metrics()


def write_predictions(path: Path, scores: Scores, log: Log) -> None:
    """Writes user, label and logit of every example at once; users are raw ids where `log` has them.

    Raises:
      UserError: if the file cannot be written there.
    """
    import polars as pl  # training and plain evaluation do without

    columns = {"label": scores.label.astype("int8"), "logit": scores.logit.astype("float32")}
    frame = pl.DataFrame({"user": scores.user, **columns})
    if isinstance(log, Store) and log.has_raw_users:
        raw = log.raw_users().select("raw", user=pl.col("index").cast(frame["user"].dtype))
        frame = frame.join(raw, on="user", how="left", maintain_order="left")
        frame = frame.select(pl.col("raw").alias("user"), *columns)
    temporary = path.with_name(path.name + ".tmp")
    try:
        frame.write_parquet(temporary)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"cannot write the predictions to {path}: {error.strerror or error}") from error
