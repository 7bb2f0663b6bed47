"""How much the teacher counts, λ, and how soft its logits are, t: AUC on the validation split.

The SUAN paper gives neither. λ = 0 is the student alone.

    python launch/sweep.py --config=configs/distill_sweep.py --workdir=runs/distill_sweep

Student and teacher train together. runs.csv has λ and t as distillation_weight and distillation_temperature.

Cost: 20 runs; on one H200 each takes a few minutes at most.
"""

from suan_jax.config import DataConfig, OptimizerConfig, TrainConfig
from suan_jax.distillation import DistillationConfig
from suan_jax.models.light_suan import LightSuan
from suan_jax.models.suan import Suan
from suan_jax.studies import SweepConfig, grid
from suan_jax.studies.ladder import POWER, WIDTH


def get_config(
    grade: int = 0, teacher_grade: int = 1, seeds: int = 2, store: str = "", max_len: int = 100
) -> SweepConfig:
    """A LightSUAN and a SUAN that teaches it, of these grades."""
    settings = grid({"distillation.weight": (0.5, 1.0, 2.0), "distillation.temperature": (1.0, 2.0, 4.0)})
    cells = ({"distillation.weight": 0.0}, *settings)
    return SweepConfig(
        model=LightSuan(grade=grade),
        data=DataConfig(store=store, max_len=max_len),
        train=TrainConfig(batch_size=256, final_split="validation"),
        optimizer=OptimizerConfig(warmup=0.1),
        distillation=DistillationConfig(
            online=True, teacher=Suan(grade=teacher_grade), rate_factor=_share(teacher_grade) / _share(grade)
        ),
        cells=tuple({**cell, "train.seed": seed} for seed in range(seeds) for cell in cells),
    )


def _share(grade: int) -> float:
    """Of the learning rate at width 48, which falls with the width."""
    return (WIDTH / (Suan.grades[grade].width or WIDTH)) ** POWER
