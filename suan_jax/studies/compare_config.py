"""What a comparison of models is."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any, ClassVar

from suan_jax.config_check import fits
from suan_jax.distillation import DistillConfig
from suan_jax.errors import UserError, nearest
from suan_jax.studies.cells import folder

RATE = "optimizer.learning_rate"
_LONGEST = 100  # bytes of a name; file systems take 255
_SHARED = ("data.store", "train.final_split", "train.seed", "train.save_scores")


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


def check_comparison(config: CompareConfig, only: Collection[str] = ()) -> None:
    """Checks what a comparison adds to a training run.

    Args:
      config: the comparison.
      only: entries that are asked for.

    Raises:
      UserError: naming what is wrong, and what was expected.
    """
    _check_entries(config.entries)
    for name in (config.reference, *only):
        if name not in config.entries:
            raise UserError(
                f"{name!r} is no entry of the comparison, the nearest is "
                f"{nearest(name, config.entries)!r} of {', '.join(config.entries)}"
            )
    entries = list(config.entries)
    for student, teacher in config.teachers.items():
        if not {student, teacher} <= set(entries) or entries.index(teacher) >= entries.index(student):
            raise UserError(
                f"config.teachers has {teacher!r} for {student!r}, expected two entries, the teacher above"
            )
        if len(config.learning_rates) > 1 and RATE not in config.entries[student]:
            raise UserError(
                f"{student!r} of config.teachers has no {RATE}, expected one, as config.learning_rates has "
                "several and its teacher is not there before they are tuned"
            )
    if config.seeds < 1:
        raise UserError(f"config.seeds is {config.seeds}, expected at least 1")
    rates = [f"{rate:g}" for rate in config.learning_rates]
    if not rates:
        raise UserError("config.learning_rates is empty, expected at least one learning rate")
    if twice := [rate for rate in rates if rates.count(rate) > 1]:
        raise UserError(f"config.learning_rates has {twice[0]} twice, to six digits, expected each once")


def _check_entries(entries: dict[str, dict[str, Any]]) -> None:
    places: dict[str, str] = {}
    for entry, fields in entries.items():
        if not isinstance(entry, str) or not entry.isprintable() or folder(entry) in ("", ".", ".."):
            raise UserError(f"config.entries has {entry!r}, expected the name of a row")
        if len(folder(entry).encode()) > _LONGEST:
            raise UserError(f"config.entries has {entry!r}, expected a name of at most {_LONGEST} bytes")
        if (other := places.setdefault(folder(entry), entry)) != entry:
            raise UserError(
                f"config.entries has {other!r} and {entry!r}, whose runs would both be in "
                f"{folder(entry)}: expected names that differ in letters or digits"
            )
        if not isinstance(fields, dict):
            raise UserError(f"config.entries has {fields!r} for {entry!r}, expected fields and their values")
        for name, value in fields.items():
            if not isinstance(name, str):
                raise UserError(f"{entry!r} of config.entries sets {name!r}, expected the name of a field")
            if name == RATE and not fits(value, float):
                raise UserError(f"{entry!r} of config.entries sets {name} to {value!r}, expected a number")
            if name in _SHARED or name.startswith("data.synthetic."):
                raise UserError(
                    f"{entry!r} of config.entries sets {name}, expected the same seeds and test examples for "
                    "all"
                )
    if not entries:
        raise UserError("config.entries is empty, expected the rows of the table")
