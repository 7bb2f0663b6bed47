"""The config file of the jobs: seconds long, on a store that was prepared for them."""

import dataclasses
from pathlib import Path

from suan_jax import config_file
from suan_jax.config import Config, DataConfig
from tests.faults.planted import plant

_TINY = Path(__file__).parents[1] / "training" / "tiny_config.py"


def get_config(store: str, job: str = "train") -> Config:
    plant()
    tiny = config_file.load(str(_TINY))
    train = dataclasses.replace(tiny.train, steps=60, eval_every=25, eval_split="validation")
    checkpoint = dataclasses.replace(tiny.checkpoint, every=12)
    fields = vars(tiny) | {
        "data": DataConfig(store=store, max_len=8),
        "train": train,
        "checkpoint": checkpoint,
    }
    # Imported by the job that needs it: it takes a second, and a job starts hundreds of times.
    if job == "distill":
        from suan_jax.distillation import DistillationConfig, DistillConfig
        from suan_jax.models.din import Din

        teacher = Din(head=(6,), embedding_width=5)
        return DistillConfig(**fields, distillation=DistillationConfig(online=True, teacher=teacher))
    if job == "sweep":
        from suan_jax.studies import SweepConfig

        return SweepConfig(**fields, cells=({"train.seed": 0}, {"train.seed": 1}))
    return Config(**fields)
