"""A run of seconds: the config file of tests that train."""

from suan_jax.config import (
    CheckpointConfig,
    Config,
    DataConfig,
    OptimizerConfig,
    SyntheticConfig,
    TrainConfig,
)
from suan_jax.models.din import Din
from suan_jax.models.suan import Suan


def get_config(model: str = "din", store: str = "") -> Config:
    kind = {"din": Din, "suan": Suan}[model]
    synthetic = SyntheticConfig(users=1024, events=20, impressions=4, items=1024)
    return Config(
        model=kind(head=(8,), embedding_width=4),
        data=DataConfig(store=store, synthetic=synthetic, max_len=8),
        optimizer=OptimizerConfig(
            learning_rate=1e-3,
            schedule="constant",
            embedding_learning_rate=0.05,
            embedding_initial_accumulator=0.01,
            embedding_init=0.01,
        ),
        train=TrainConfig(batch_size=64, steps=20, log_every=1, eval_batch_size=256),
        checkpoint=CheckpointConfig(every=5),
    )
