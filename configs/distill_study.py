r"""LightSUAN taught by a larger SUAN, online and offline, beside what it must beat.

Claim (the paper's, to be checked): a distilled LightSUAN ranks above the SUAN one grade above it.
Differences are measured against that SUAN.

    python launch/compare.py --config=configs/distill_study.py --workdir=runs/distill_study

    python launch/compare.py --config=configs/distill_study.py:store=stores/kuairand_pure \
        --workdir=runs/kuairand_distill

The student is of grade 0 unless given, its teacher two grades above it. All entries share head, data and
budget; their learning rates are 2.2e-3 · 48 / width, after a warm-up over a tenth of the steps, without which
teachers may fail to train. Without a store it runs on the synthetic log, at L = 100.

Cost: 18 runs; most of it is the teacher, which is trained alone, and once more beside each online student.
"""

import dataclasses
from typing import Any

from suan_jax.config import DataConfig, OptimizerConfig, TrainConfig
from suan_jax.distillation import DistillationConfig
from suan_jax.models.suan import Suan
from suan_jax.studies import CompareConfig
from suan_jax.studies.kuairand import EMBEDDING_WIDTH, on_kuairand
from suan_jax.studies.ladder import POWER, RATE, WIDTH


def get_config(grade: int = 0, teacher_grade: int = -1, store: str = "", max_len: int = 0) -> CompareConfig:
    """Students of a grade; the teacher's is two above unless given."""
    teacher = grade + 2 if teacher_grade < 0 else teacher_grade
    if store:
        features, shared = 5 * EMBEDDING_WIDTH, on_kuairand(store, max_len)
        model = Suan(embedding_width=EMBEDDING_WIDTH)
    else:
        shared = {"data": DataConfig(max_len=max_len or 100), "train": TrainConfig(batch_size=256)}
        features, model = WIDTH, Suan()
    optimizer = dataclasses.replace(shared.pop("optimizer", OptimizerConfig()), warmup=0.1)

    def rate(grade: int) -> float:
        """Of a SUAN; at grade 0 it is as wide as a token's features."""
        return float(f"{RATE * (WIDTH / (Suan.grades[grade].width or features)) ** POWER:.3g}")

    def entry(grade: int, **fields: Any) -> dict[str, Any]:
        return {"model.grade": grade, "optimizer.learning_rate": rate(grade)} | fields

    light = {"model.name": "light_suan"}
    offline = f"LightSUAN {grade}, offline"
    above = f"SUAN {grade + 1}, one above"
    return CompareConfig(
        model=model,
        **shared,
        optimizer=optimizer,
        distillation=DistillationConfig(
            teacher=dataclasses.replace(model, grade=teacher), rate_factor=rate(teacher) / rate(grade)
        ),
        entries={
            f"SUAN {grade}": entry(grade),
            f"SUAN {teacher}, the teacher": entry(teacher),
            above: entry(grade + 1),
            f"LightSUAN {grade}, alone": entry(grade, **light),
            f"LightSUAN {grade}, online": entry(grade, **light, **{"distillation.online": True}),
            offline: entry(grade, **light, **{"distillation.online": False}),
        },
        teachers={offline: f"SUAN {teacher}, the teacher"},
        reference=above,
    )
