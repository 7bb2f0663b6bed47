"""What a comparison of models is."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from suan_jax.distillation import DistillConfig


@dataclasses.dataclass
class CompareConfig(DistillConfig):
    """A comparison: the fields of a training run, which every model shares, and what differs.

    The head, the embedding width, the tables' optimizer, the data and the budget are those of the shared
    fields. Each model's peak learning rate is the best of `learning_rates` by its AUC on the validation
    split, trained on the train split alone; the models are then trained with every seed as the shared fields
    say.

    Attributes:
      entries: row of the table to the fields in which it differs, such as
        {"SUAN(L)": {"model.name": "suan", "data.max_len": 1000}}. An entry that sets a field of
        `distillation` is a student; `config.distillation` holds what students share.
      learning_rates: the grid, the same for every model; a single one is taken as it is.
      seeds: every model is trained with the seeds 0 to seeds − 1.
      reference: the entry that others are measured against.
      teachers: student that is taught offline to an entry above it whose run of the same seed teaches it;
        such a student needs a learning rate of its own, unless the grid has but one.
    """

    job: ClassVar[str] = "launch/compare.py"
    entries: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    learning_rates: tuple[float, ...] = (5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)
    seeds: int = 3
    reference: str = "DIN"
    teachers: dict[str, str] = dataclasses.field(default_factory=dict)
