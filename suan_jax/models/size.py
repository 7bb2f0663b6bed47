"""Sizes of models: of those that come in grades, a table, any of which a setting replaces."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from suan_jax.errors import UserError
from suan_jax.models.model import ModelDefinition
from suan_jax.schema import Schema

_LARGEST = 2**24  # far above what any machine holds, and int32 holds its sums


def check_only_grade(config: ModelDefinition) -> None:
    """Raises `UserError` unless `config.model.grade` is 0, for a model of one grade."""
    if config.grade != 0:
        raise UserError(f"config.model.grade is {config.grade}, expected 0, the only grade of {config.name}")


def check_sizes(**sizes: int) -> None:
    """Raises `UserError` unless each of these settings of `config.model` is at least 1, and an int32."""
    for name, size in sizes.items():
        if size < 1:
            raise UserError(f"config.model.{name} is {size}, expected at least 1")
        if size > _LARGEST:
            raise UserError(f"config.model.{name} is {size}, expected at most {_LARGEST}")


@dataclasses.dataclass(frozen=True)
class Size:
    """Layers, D (None: as wide as a token's features side by side) and H."""

    layers: int
    width: int | None
    heads: int


@dataclasses.dataclass
class SizedDefinition(ModelDefinition):
    """A model with grades; sizes that are None come from `grades[grade]`.

    Attributes:
      layers: blocks.
      width: D; None at grade 0 is the width of a token's features.
      heads: H; divides D.
    """

    grades: ClassVar[tuple[Size, ...]]
    layers: int | None = None
    width: int | None = None
    heads: int | None = None

    def features_width(self, schema: Schema) -> int:
        """Width of a token before any projection: its history features side by side."""
        return len(schema.history) * self.embedding_width

    def size(self, schema: Schema) -> Size:
        """The sizes of this model for logs of `schema`, none of them None.

        Raises:
          UserError: if a setting is out of its range.
        """
        if self.grade not in range(len(self.grades)):
            raise UserError(f"config.model.grade is {self.grade}, expected 0 to {len(self.grades) - 1}")
        grade = self.grades[self.grade]
        layers = grade.layers if self.layers is None else self.layers
        width = (grade.width or self.features_width(schema)) if self.width is None else self.width
        heads = grade.heads if self.heads is None else self.heads
        check_sizes(layers=layers, width=width, heads=heads)
        if width % heads:
            raise UserError(f"config.model.heads is {heads}, expected a divisor of the width, {width}")
        return Size(layers, width, heads)
