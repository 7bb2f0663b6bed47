"""A study of depths as people read it: on a terminal, as JSON and CSV, and as a figure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from suan_jax.figures import can_draw
from suan_jax.files import write_bytes, write_json
from suan_jax.runs import csv_text
from suan_jax.studies.depths import DepthStudy
from suan_jax.table import print_table

_RULES = {
    "change": "stopping once the logit changes by less than a threshold",
    "gate": "stopping once a learned gate expects less than a threshold of change to come",
}
_FIXED = ("auc", "auc_se", "gauc", "log_loss", "difference", "difference_se")
_ADAPTIVE = ("auc", "random_auc", "gain", "gain_se", "threshold")


def print_depths(study: DepthStudy, workdir: Path) -> None:
    """Prints what each depth, the oracle with its controls, and the rules are worth."""
    print_table(
        f"{workdir}: {study.model} at a fixed depth, {study.examples:,} test examples",
        ("loops", "MFLOPs", "AUC", "± SE", "gAUC", "log loss", "difference to depth 0", "± SE"),
        [(row["depth"], row["flops"] / 1e6, *(row[name] for name in _FIXED)) for row in study.fixed],
    )
    found = study.headroom
    choices = {
        "mean of the depths' logits": found.mean,
        "oracle over the depths": found.oracle,
        "control: as much Gaussian noise": found.gaussian,
        "control: other examples' differences": found.shuffled,
    }
    print_table(
        f"the oracle reads labels and gains from noise too; the depths disagree by {found.disagreement:.4g}",
        ("", "AUC", "gain"),
        [(name, auc, auc - found.mean) for name, auc in choices.items()],
    )
    for rule, title in _RULES.items():
        print_table(
            title,
            ("mean depth", "MFLOPs", "AUC", "AUC at random", "gain", "± SE", "threshold"),
            [
                (row["mean_depth"], row["flops"] / 1e6, *(row[name] for name in _ADAPTIVE))
                for row in study.rules[rule]
            ],
        )
    print(
        "± SE is DeLong's, of the test examples; at random means the rule's depths dealt out to other "
        "examples; a rule's MFLOPs include the logit of every depth that it passes."
    )
    if study.fitted_on_trained:
        print("The model was trained on the validation split too, on which gate and thresholds are fitted.")


def write_depths(study: DepthStudy, workdir: Path) -> None:
    """Writes depths.json, depths.csv and, where matplotlib is installed, depths.png and depths.svg.

    The CSV has a row per fixed depth and per point of a rule's curve; what does not apply is empty.
    """
    write_json(workdir / "depths.json", dataclasses.asdict(study))
    write_bytes(workdir / "depths.csv", csv_text(_points(study)).encode())
    if can_draw():
        from suan_jax.studies import depths_figure

        depths_figure.draw(study, workdir)


def _points(study: DepthStudy) -> Iterator[dict[str, Any]]:
    for row in study.fixed:
        yield {"rule": "fixed", "mean_depth": row["depth"], "flops": row["flops"], "auc": row["auc"]}
    for rule, rows in study.rules.items():
        for row in rows:
            yield {"rule": rule, **{name: value for name, value in row.items() if name != "shares"}}
