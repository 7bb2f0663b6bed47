import dataclasses
import sys
import textwrap
from pathlib import Path

import pytest
from absl import flags

from suan_jax import config_dict, config_file
from suan_jax.config import Config, ModelConfig
from suan_jax.errors import UserError


@dataclasses.dataclass
class SmallConfig(ModelConfig):
    name: str = "small"
    layers: int = 2
    width: int | None = None
    gate: bool = True
    embedding_width: int = 4


@dataclasses.dataclass
class LargeConfig(ModelConfig):
    name: str = "large"
    layers: int = 6
    experts: tuple[int, ...] = (1, 2)
    width: tuple[int, ...] = (3,)


@pytest.fixture(autouse=True)
def _models(monkeypatch):
    known = {"small": SmallConfig, "large": LargeConfig}
    monkeypatch.setattr(config_dict, "registered", lambda: known)


@pytest.fixture
def write(tmp_path):
    def write_file(text: str, name: str = "study.py") -> str:
        path = tmp_path / name
        path.write_text(textwrap.dedent(text))
        return str(path)

    return write_file


_STUDY = """
from __future__ import annotations
from suan_jax.config import Config, TrainConfig
from tests.config_file_test import SmallConfig

def get_config(grade: int = 0, store: str = "", share: float = 1.0, quick: bool = False, free="x"):
    config = Config(model=SmallConfig(grade=grade, layers=3), train=TrainConfig(steps=7 if quick else 70))
    config.data.store, config.data.train_fraction, config.init_from = store, share, free
    return config
"""


@pytest.fixture
def study(write):
    return write(_STUDY)


@pytest.mark.smoke
def test_arguments_after_the_colon_are_typed_by_the_signature(study):
    config = config_file.load(f"{study}:grade=2,store=/data/kuai,share=0.1,quick=true,free=1")
    assert (config.model.grade, config.data.store, config.data.train_fraction) == (2, "/data/kuai", 0.1)
    assert (config.train.steps, config.init_from) == (7, "1")
    assert config_file.load(study).train.steps == 70


@pytest.mark.smoke
def test_overrides_are_typed_by_the_config(study):
    config = config_file.load_config(
        [
            f"--config={study}:grade=1",
            "--config.train.steps=100",
            "--config.train.epochs=2",
            "--config.data.store",
            "/data/kuai",
            "--noconfig.model.gate",
            "--config.model.head=64,32",
            "--config.model.width=16",
            "--config.optimizer.multipliers=(('head/.*', 0.1),)",
        ]
    )
    assert config.train.steps == 100
    assert repr(config.train.epochs) == "2.0"
    assert config.data.store == "/data/kuai"
    assert config.model.gate is False
    assert (config.model.head, config.model.width, config.model.grade) == ((64, 32), 16, 1)
    assert config.optimizer.multipliers == (("head/.*", 0.1),)


def test_another_model_takes_over_what_was_set_and_the_overrides(study):
    argv = ["--config.model.name=large", "--config.model.experts=4,8,16", "--config.model.grade=3"]
    model = config_file.load_config([f"--config={study}:grade=1", *argv]).model
    # layers was set by the file, embedding_width is small's own default, and the two widths differ in type.
    assert model == LargeConfig(layers=3, experts=(4, 8, 16), grade=3)
    assert model.embedding_width == ModelConfig().embedding_width
    same = config_file.load_config([f"--config={study}", "--config.model.name", "small"]).model
    assert same == SmallConfig(layers=3)


def _refusal(argv) -> str:
    with pytest.raises(UserError) as caught:
        config_file.load_config(argv)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("train.batchsize=3", ["config.train.batchsize is not a field", "config.train.batch_size"]),
        ("batch_size=3", ["config.batch_size is not a field", "config.train.batch_size"]),
        ("model.experts=3", ["config.model.experts is not a field"]),
        ("model=large", ["config.model is a group of fields"]),
        ("model.name=larg", ["config.model.name is 'larg'", "'large'", "large, small"]),
        ("train.steps=abc", ["config.train.steps is 'abc'", "integer"]),
        ("train.steps=1.5", ["config.train.steps is '1.5'", "integer"]),
        ("train.epochs=x", ["config.train.epochs is 'x'", "number"]),
        ("model.gate=perhaps", ["config.model.gate is 'perhaps'", "bool"]),
        ("model.head=a,b", ["config.model.head is", "tuple[int, ...]"]),
        ("train.batch_size=0", ["config.train.batch_size is 0", "positive"]),
    ],
)
def test_a_wrong_override_is_one_sentence(study, override, parts):
    message = _refusal([f"--config={study}", f"--config.{override}"])
    for part in parts:
        assert part in message


def test_a_missing_config_is_one_sentence():
    assert "--config=FILE is missing" in _refusal([])
    assert "--config.train.steps changes a value of --config, which is missing" in _refusal(
        ["--config.train.steps=3"]
    )


def test_an_empty_or_a_second_config_is_one_sentence(study, tmp_path):
    assert "names no file" in _refusal(["--config="])
    argv = [f"--config={study}", f"--config={study}", "--config.train.steps=3"]
    assert "given more than once" in _refusal(argv)
    assert _refusal([f"--config={tmp_path}"]).endswith("Is a directory")


def test_an_override_before_the_file_is_one_sentence(study):
    assert "--config" in _refusal(["--config.train.steps=3", f"--config={study}"])


@pytest.mark.parametrize(
    ("argument", "parts"),
    [
        ("grad=1", ["no argument 'grad'", "grade, store, share, quick, free"]),
        ("grade=one", ["grade=one should be int"]),
        ("quick=perhaps", ["quick=perhaps should be bool"]),
        ("large", ["'large' is not of the form key=value"]),
    ],
)
def test_a_wrong_argument_is_one_sentence(study, argument, parts):
    message = _refusal([f"--config={study}:{argument}"])
    for part in [study, *parts]:
        assert part in message


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("x = 1", ["has no function get_config"]),
        ("def get_config():\n  return {}", ["returned a dict, expected a Config"]),
        ("def get_config():\n  pass", ["returned a NoneType"]),
        ("def get_config():\n  return 1 / 0", ["get_config fails at line 2 with ZeroDivisionError"]),
        ("import nothing_of_this_name", ["fails at line 1 with ModuleNotFoundError"]),
        ("x = 1\ndef get_config(:", ["fails at line 2 with SyntaxError"]),
        ("def get_config(grade):\n  pass", ["needs the argument 'grade'"]),
        (
            "from suan_jax.errors import UserError\ndef get_config():\n  raise UserError('no such day')",
            ["no such day"],
        ),
    ],
)
def test_a_broken_file_is_one_sentence(write, text, parts):
    path = write(text)
    message = _refusal([f"--config={path}"])
    for part in parts:
        assert part in message
    assert path in message or parts == ["no such day"]


def test_a_missing_file_names_the_nearest(study):
    message = _refusal([f"--config={study[:-4]}.py"])
    assert "No such file" in message
    assert f"the nearest is {study}" in message
    assert "'/nowhere/x.py' cannot be read" in _refusal(["--config=/nowhere/x.py"])


def test_the_work_directory_is_named_after_the_file(study):
    values = flags.FlagValues()
    argv = ["train", f"--config={study}:grade=1"]
    config_file.define_config(flag_values=values, argv=argv)
    values(argv)
    assert config_file.default_workdir(values) == Path("runs/study")


def test_loading_twice_gives_configs_of_their_own(study):
    first, second = config_file.load(study), config_file.load(study)
    first.train.steps = 1
    assert isinstance(second, Config)
    assert second.train.steps == 70


def test_files_beside_a_config_file_can_be_imported_and_hide_nothing(write, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    write("STEPS = 9", "a_neighbour.py")
    write("raise RuntimeError", "textwrap.py")
    path = write(
        """
        import textwrap
        from a_neighbour import STEPS
        from suan_jax.config import Config, TrainConfig
        from tests.config_file_test import SmallConfig
        def get_config():
            return Config(model=SmallConfig(), train=TrainConfig(steps=STEPS))
        """
    )
    assert config_file.load(path).train.steps == 9


def test_definitions_are_loaded_without_a_config(write):
    path = write("import dataclasses\nSEEN = 1\ndef get_config(grade):\n  raise RuntimeError")
    config_file.load_definitions(f"{path}:grade=1")
    assert sys.modules["config_file_study"].SEEN == 1
    with pytest.raises(UserError, match=r"no_study\.py' cannot be read: No such file"):
        config_file.load_definitions(path.replace("study", "no_study"))
    with pytest.raises(UserError, match="fails at line 1 with ZeroDivisionError"):
        config_file.load_definitions(write("1 / 0"))
    with pytest.raises(UserError, match="names no file"):
        config_file.load_definitions(":grade=1")


def test_the_config_of_another_job_names_it():
    with pytest.raises(UserError, match=r"a CompareConfig, which launch/compare.py reads, expected a Config"):
        config_file.load_config(["--config=configs/compare.py"])


def test_a_field_without_its_prefix_names_it(study):
    assert "--train.steps is not a flag, the field is set by --config.train.steps" in _refusal(
        [f"--config={study}", "--train.steps=3"]
    )
