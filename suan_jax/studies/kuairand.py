"""What studies on KuaiRand-Pure share: the settings that configs/kuairand.py found."""

from __future__ import annotations

from typing import Any

from suan_jax.config import DataConfig, OptimizerConfig, TrainConfig

EMBEDDING_WIDTH = 16


def on_kuairand(store: str, max_len: int = 0) -> dict[str, Any]:
    """The fields `data`, `optimizer` and `train` of a run on a store of KuaiRand-Pure, or of one like it.

    Args:
      store: directory that `launch/prepare.py` wrote.
      max_len: L; 50, as long as its histories mostly are, if 0.
    """
    return {
        "data": DataConfig(store=store, max_len=max_len or 50, train_on="train+validation"),
        "optimizer": OptimizerConfig(schedule="linear", embedding_learning_rate=0.05, embedding_init=0.01),
        "train": TrainConfig(batch_size=512),
    }
