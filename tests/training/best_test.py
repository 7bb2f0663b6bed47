import math

import pytest

from suan_jax.training.best import best_step
from suan_jax.training.metric_writer import plain
from tests.training.runs import tiny

_ROWS = [
    {"step": 5, "loss": 0.1},
    {"step": 5, "split": "validation", "auc": 0.7, "gauc": plain(math.nan), "log_loss": 0.4},
    {"step": 10, "split": "validation", "auc": 0.9, "gauc": None, "log_loss": 0.3},
    {"step": 10, "split": "test", "auc": 0.99, "gauc": None, "log_loss": 0.01},
    {"step": 15, "split": "validation", "auc": 0.9, "gauc": None, "log_loss": 0.5},
    {"step": 20, "split": "test", "auc": 1.0, "gauc": 1.0, "log_loss": 0.0},
]


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("metric", "steps", "best"),
    [
        ("auc", (5, 10, 15, 20), 10),  # the first of equals, on the split that is watched
        ("auc", (5, 15), 15),
        ("log_loss", (5, 10, 15), 10),
        ("log_loss", (5, 15), 5),
        ("gauc", (5, 10, 15), None),
        ("auc", (7,), None),
        ("", (5, 10), None),
    ],
)
def test_best(metric, steps, best):
    config = tiny("train.eval_every=5", "train.eval_split=validation", f"checkpoint.best={metric}")
    assert best_step(_ROWS, config, steps) == best
