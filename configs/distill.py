"""A small LightSUAN that learns from a larger SUAN beside the labels (RecSys 2025, arXiv 2508.15326).

Claim (the paper's, to be checked): a distilled LightSUAN ranks above the SUAN one grade above it.

    python launch/distill.py --config=configs/distill.py --config.distillation.online=True

    python launch/train.py --config=configs/suan.py:grade=1 --workdir=runs/teacher
    python launch/distill.py --config=configs/distill.py --teacher=runs/teacher --workdir=runs/taught

Online, teacher and student train together; offline, the teacher is whatever model the work directory holds.
The paper gives neither the teacher's weight λ nor the temperature t; configs/distill_sweep.py tries some, and
configs/distill_study.py sets the students beside plain runs.

Cost: online, a step costs as much as one of the teacher and one of the student; offline, the teacher's part
is a third of that.
"""

from suan_jax.config import DataConfig, TrainConfig
from suan_jax.distillation import DistillationConfig, DistillConfig
from suan_jax.models.light_suan import LightSuan
from suan_jax.models.suan import Suan


def get_config(grade: int = 0, teacher_grade: int = 1, store: str = "", max_len: int = 100) -> DistillConfig:
    """A student of a grade; `teacher_grade` is that of the teacher who trains along."""
    return DistillConfig(
        model=LightSuan(grade=grade),
        data=DataConfig(store=store, max_len=max_len),
        train=TrainConfig(batch_size=256, epochs=1),
        distillation=DistillationConfig(teacher=Suan(grade=teacher_grade)),
    )
