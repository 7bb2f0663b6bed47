import dataclasses
import math

import pytest

from suan_jax.config import Config, ModelConfig
from suan_jax.config_check import validate
from suan_jax.errors import UserError


def _with(name: str, value) -> Config:
    config = Config(model=ModelConfig())
    *groups, field = name.split(".")
    holder = config
    for group in groups:
        holder = getattr(holder, group)
    setattr(holder, field, value)
    return config


@pytest.mark.smoke
def test_the_defaults_are_valid():
    validate(Config(model=ModelConfig()))


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("train.batch_size", 0, "positive"),
        ("train.batch_size", True, "int"),
        ("train.batch_size", "8", "int"),
        ("train.log_every", -1, "positive"),
        ("train.eval_every", -1, "not negative"),
        ("train.epochs", 0.0, "train.steps is 0"),
        ("train.epochs", math.inf, "train.steps is 0"),
        ("train.eval_split", "dev", "'validation'"),
        ("data.max_len", 0, "positive"),
        ("data.train_fraction", 0.0, r"\(0, 1\]"),
        ("data.train_fraction", 1.01, r"\(0, 1\]"),
        ("data.train_fraction", math.nan, r"\(0, 1\]"),
        ("data.negative_rate", -0.1, r"\(0, 1\]"),
        ("data.fraction_by", "item", "'user', 'time'"),
        ("data.train_on", "all", r"'train\+validation'"),
        ("data.synthetic.users", 0, "positive"),
        ("model.dtype", "float16", "'bfloat16'"),
        ("model.head", (64, 0), "positive widths"),
        ("model.head", [64], r"tuple\[int, \.\.\.\]"),
        ("model.head", ("a",), r"tuple\[int, \.\.\.\]"),
        ("optimizer.schedule", "step", "'cosine'"),
        ("optimizer.learning_rate", math.nan, "not negative"),
        ("optimizer.multipliers", (("(", 1.0),), "a regular expression"),
        ("optimizer.multipliers", (("a", 1.0, 2.0),), "tuple"),
        ("checkpoint.best", "f1", "'gauc'"),
        ("mesh.data", 0, "or -1"),
        ("mesh.model", -1, "mesh.data is -1 already"),
        ("train", None, "TrainConfig"),
    ],
)
def test_a_wrong_value_is_named_with_its_field(name, value, expected):
    with pytest.raises(UserError, match=rf"^config\.{name.replace('.', '[.]')} is .*, expected .*{expected}"):
        validate(_with(name, value))


def test_steps_make_epochs_irrelevant():
    config = _with("train.epochs", 0.0)
    config.train.steps = 10
    validate(config)


def test_an_int_is_a_float_and_optional_fields_are_checked():
    @dataclasses.dataclass
    class Optional(ModelConfig):
        size: int | None = None

    validate(_with("train.epochs", 2))
    validate(Config(model=Optional(size=3)))
    with pytest.raises(UserError, match=r"config\.model\.size is 'x', expected int \| None"):
        validate(Config(model=Optional(size="x")))


def test_the_test_split_may_not_choose_the_checkpoint():
    config = Config(model=ModelConfig())
    config.checkpoint.best, config.train.eval_every, config.train.eval_split = "auc", 10, "test"
    with pytest.raises(UserError, match="would choose by the test split"):
        validate(config)
    config.train.eval_split = "validation"
    validate(config)
