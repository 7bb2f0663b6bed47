"""Stands in for training where a test is of what studies make of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from suan_jax.config import Config
from suan_jax.studies import cells

Train = Callable[[Config, Path], dict[str, Any]]


def train_by(monkeypatch: Any, train: Train) -> None:
    """Has cells call `train(config, workdir)` in place of training."""

    def train_together(configs: dict[Path, Config]) -> dict[Path, dict[str, Any]]:
        return {workdir: train(config, workdir) for workdir, config in configs.items()}

    monkeypatch.setattr(cells, "train_together", train_together)
