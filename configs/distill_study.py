"""LightSUAN taught by a larger SUAN, online and offline, beside what it must beat.

Claim (the paper's, to be checked): a distilled LightSUAN ranks above the SUAN one grade above it.
Differences are measured against that SUAN.

    python launch/compare.py --config=configs/distill_study.py --workdir=runs/distill_study

The student is of grade 0 unless given, its teacher two grades above it. All entries share head, data, budget
and learning rates. Without a store it runs on the synthetic log.

Cost: 18 runs; most of it is the teacher, which is trained alone, and once more beside each online student.
"""

from suan_jax.config import DataConfig, TrainConfig
from suan_jax.distillation import DistillationConfig
from suan_jax.models.suan import Suan
from suan_jax.studies import CompareConfig


def get_config(grade: int = 0, teacher_grade: int = -1, store: str = "", max_len: int = 100) -> CompareConfig:
    """Students of a grade; the teacher's is two above unless given."""
    teacher = grade + 2 if teacher_grade < 0 else teacher_grade
    student = {"model.name": "light_suan", "model.grade": grade}
    offline = f"LightSUAN {grade}, offline"
    above = f"SUAN {grade + 1}, one above"
    return CompareConfig(
        model=Suan(),
        data=DataConfig(store=store, max_len=max_len),
        train=TrainConfig(batch_size=256),
        distillation=DistillationConfig(teacher=Suan(grade=teacher)),
        entries={
            f"SUAN {grade}": {"model.grade": grade},
            f"SUAN {teacher}, the teacher": {"model.grade": teacher},
            above: {"model.grade": grade + 1},
            f"LightSUAN {grade}, alone": student,
            f"LightSUAN {grade}, online": {**student, "distillation.online": True},
            offline: {**student, "distillation.online": False},
        },
        teachers={offline: f"SUAN {teacher}, the teacher"},
        learning_rates=(2e-3,),
        reference=above,
    )
