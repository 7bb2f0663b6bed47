"""What the depths of one trained run are worth: each alone, chosen by an oracle, and chosen by example.

Both splits are scored once, at all depths. Rules that stop early are fitted, and their thresholds chosen, on
the validation split; every number is of the test split.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from suan_jax.errors import UserError
from suan_jax.evaluation import adaptive, metrics
from suan_jax.evaluation.depths import Headroom, headroom
from suan_jax.evaluation.evaluator import Scores
from suan_jax.models.model import TRAINING_PASSES
from suan_jax.training.compilation import enable_compilation_cache
from suan_jax.training.evaluation import Evaluation
from suan_jax.training.restore import restore_run
from suan_jax.training.setup import Setup
from suan_jax.training.summary import flops_by_loops
from suan_jax.training.workdir import read_config


@dataclasses.dataclass(frozen=True)
class DepthStudy:
    """What `study_depths` found; all of the test split.

    Attributes:
      model: the model's name.
      examples: examples of the split.
      fixed: a row per depth: depth, flops, auc, auc_se (DeLong), gauc, log_loss, and difference and
        difference_se of its AUC to that of depth 0, paired by example.
      headroom: the oracle and its controls.
      rules: name of a rule to its curve, see `adaptive.curve`.
      fitted_on_trained: whether the model had been trained on the examples that the gate was fitted on.
    """

    model: str
    examples: int
    fixed: list[dict[str, Any]]
    headroom: Headroom
    rules: dict[str, list[dict[str, Any]]]
    fitted_on_trained: bool


def study_depths(workdir: Path) -> DepthStudy:
    """Studies the depths of the run in a work directory.

    Raises:
      UserError: if it holds no run, no checkpoint, or no model that was trained with loops, or if its log's
        test split has no AUC.
    """
    definition = read_config(workdir).model
    loops = definition.loops()
    if loops is None or loops.trained == 0:
        what = "has no loops" if loops is None else "was trained with 0 loops"
        raise UserError(f"{workdir} holds {definition.name}, which {what}, expected at least 1")
    enable_compilation_cache()
    setup, state = restore_run(workdir)
    evaluation = Evaluation(setup)
    judged = evaluation.scores(state, "test", depths=True)
    if judged.label.min() == judged.label.max():
        raise UserError(
            f"no depth of {workdir} has an AUC: the test split of {setup.log} lacks clicks, or impressions "
            "without one"
        )
    known = evaluation.scores(state, "validation", depths=True)
    gate = adaptive.fit_gate(known.depths)
    rules = {
        "change": (adaptive.change_scores(known.depths), adaptive.change_scores(judged.depths)),
        "gate": (gate.scores(known.depths), gate.scores(judged.depths)),
    }
    flops, exit_flops = _flops(setup)
    return DepthStudy(
        model=definition.name,
        examples=len(judged.label),
        fixed=[_fixed(judged, depth, flops[depth]) for depth in range(loops.trained + 1)],
        headroom=headroom(judged.label, judged.depths),
        rules={
            name: adaptive.curve(
                judged.label, judged.depths, scores, adaptive.thresholds(earlier), flops, exit_flops
            )
            for name, (earlier, scores) in rules.items()
        },
        fitted_on_trained="validation" in setup.config.data.train_on,
    )


def _flops(setup: Setup) -> tuple[list[float], float]:
    """FLOPs of an example at each depth alone, and of one more depth's logit."""
    definition, schema, max_len = setup.config.model, setup.log.schema, setup.config.data.max_len
    alone = flops_by_loops(definition, schema, max_len)
    # A forward pass in training scores every depth, one at the last depth that one alone.
    every = definition.training_flops_per_example(schema, max_len) / TRAINING_PASSES
    return alone, (every - alone[-1]) / definition.loops().trained


def _fixed(scores: Scores, depth: int, flops: float) -> dict[str, Any]:
    found = metrics.evaluate(scores.user, scores.label, scores.depths[depth])
    difference, error = metrics.auc_difference(scores.label, scores.depths[depth], scores.depths[0])
    return {
        "depth": depth,
        "flops": flops,
        **{name: found[name] for name in ("auc", "auc_se", "gauc", "log_loss")},
        "difference": difference,
        "difference_se": error,
    }
