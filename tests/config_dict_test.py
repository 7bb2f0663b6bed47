import dataclasses
import json

import pytest

from suan_jax import config_dict
from suan_jax.config import Config, ModelConfig, TrainConfig
from suan_jax.config_dict import differences, from_dict, to_dict
from suan_jax.errors import UserError


@dataclasses.dataclass
class DeepConfig(ModelConfig):
    name: str = "deep"
    widths: tuple[tuple[int, int], ...] = ((1, 2),)
    size: int | None = None


@dataclasses.dataclass
class TeacherConfig:
    model: ModelConfig | None = None
    weight: float = 0.5


@dataclasses.dataclass
class LessonConfig(Config):
    teacher: TeacherConfig = dataclasses.field(default_factory=TeacherConfig)


@pytest.fixture(autouse=True)
def _models(monkeypatch):
    monkeypatch.setattr(config_dict, "registered", lambda: {"deep": DeepConfig})


def _round_trip(config: Config) -> Config:
    return from_dict(json.loads(json.dumps(to_dict(config))))


@pytest.mark.smoke
def test_json_keeps_everything_and_the_models_class():
    config = Config(model=DeepConfig(widths=((3, 4), (5, 6)), head=(7,)), train=TrainConfig(steps=9))
    config.optimizer.multipliers = (("head", 0.1), ("blocks/.*", 2.0))
    result = _round_trip(config)
    assert result == config
    assert type(result.model) is DeepConfig
    assert isinstance(result.model.widths[1], tuple)
    assert differences(result, config) == []


def test_json_keeps_a_jobs_own_config_class():
    config = LessonConfig(model=DeepConfig(), teacher=TeacherConfig(model=DeepConfig(size=3)))
    result = _round_trip(config)
    assert result == config
    assert type(result) is LessonConfig
    assert type(result.teacher.model) is DeepConfig
    assert _round_trip(LessonConfig(model=DeepConfig())).teacher.model is None


def test_what_is_missing_takes_its_default():
    config = from_dict({"model": {"name": "deep"}, "train": {"steps": 5}})
    assert config == Config(model=DeepConfig(), train=TrainConfig(steps=5))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"model": {"name": "dep"}}, r"config\.model\.name is 'dep'.*'deep'"),
        ({"model": {"name": "deep"}, "train": {"step": 3}}, r"config\.train\.step .*config\.train\.steps"),
        ({"model": {"name": "deep"}, "kind": "json.JSONDecoder"}, "derives from Config"),
        ({"model": {"name": "deep"}, "kind": "suan_jax.nothing.C"}, "expected a config class"),
        ({"model": {"name": "deep"}, "kind": "C"}, "expected a config class"),
    ],
)
def test_what_is_unknown_is_named(data, message):
    with pytest.raises(UserError, match=message):
        from_dict(data)


def test_the_class_of_a_config_is_never_imported_from_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "elsewhere.py").write_text("raise RuntimeError('run')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"config\.kind is 'elsewhere\.C'.*--config=FILE"):
        from_dict({"model": {"name": "deep"}, "kind": "elsewhere.C"})


def test_differences_name_fields_and_both_values():
    a = Config(model=DeepConfig(size=3), train=TrainConfig(steps=5))
    b = Config(model=ModelConfig(name="plain"), init_from="runs/x")
    assert differences(a, b) == [
        "model.name: 'deep' != 'plain'",
        "model.widths: ((1, 2),) != (absent)",
        "model.size: 3 != (absent)",
        "train.steps: 5 != 0",
        "init_from: '' != 'runs/x'",
    ]
