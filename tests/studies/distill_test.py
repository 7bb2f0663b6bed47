"""Students among the entries of a comparison and the cells of a sweep."""

import dataclasses
import pathlib

import pytest

from suan_jax import config_file, models
from suan_jax.config import Config
from suan_jax.config_dict import to_dict
from suan_jax.distillation import DistillationConfig, DistillConfig
from suan_jax.errors import UserError
from suan_jax.files import write_json
from suan_jax.models.din import Din
from suan_jax.models.suan import Suan
from suan_jax.studies import CompareConfig, SweepConfig, cells
from suan_jax.studies.compare import _final_cells
from suan_jax.studies.compare_config import check_comparison
from suan_jax.studies.config_fields import with_fields
from suan_jax.studies.sweep import cells as cells_of
from tests.random_batch import random_schema
from tests.studies.stand_in import train_by

_CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
_STUDY = CompareConfig(
    model=Din(embedding_width=16),
    distillation=DistillationConfig(teacher=Suan(grade=1), weight=3.0),
    entries={
        "teacher": {"model.name": "suan"},
        "alone": {},
        "online": {"distillation.online": True, "distillation.teacher.name": "hstu"},
        "offline": {"distillation.temperature": 4.0},
    },
    teachers={"offline": "teacher"},
    learning_rates=(1e-3,),
    seeds=2,
    reference="alone",
)


@pytest.fixture
def trained(monkeypatch):
    """(work directory, config, teacher) of the runs that stand-ins for both jobs made."""
    calls = []

    def run(config, workdir, teacher=None):
        calls.append((workdir, config, teacher))
        if config.train.seed == 1 and config.model.name == "suan":
            raise UserError("out of luck")
        workdir.mkdir(parents=True, exist_ok=True)
        write_json(workdir / "config.json", to_dict(config))
        write_json(workdir / "summary.json", {"model": config.model.name})
        return {}

    train_by(monkeypatch, run)
    monkeypatch.setattr(cells, "distill", run)
    return calls


@pytest.mark.smoke
def test_an_entry_that_sets_a_field_of_the_distillation_is_a_student():
    assert type(with_fields(_STUDY, _STUDY.entries["alone"])) is Config
    online = with_fields(_STUDY, _STUDY.entries["online"])
    assert type(online) is DistillConfig
    assert (online.distillation.teacher.name, online.distillation.weight) == ("hstu", 3.0)
    assert _STUDY.distillation.teacher.name == "suan"
    with pytest.raises(UserError, match=r"--teacher=WORKDIR is missing"):
        with_fields(_STUDY, {"distillation.temperature": 4.0})
    with pytest.raises(UserError, match=r"config.distillation.weight is -1.0, expected"):
        with_fields(_STUDY, {"distillation.online": True, "distillation.weight": -1.0})


def test_an_offline_student_learns_from_the_teacher_s_run_of_its_seed(trained, tmp_path):
    rates = dict.fromkeys(_STUDY.entries, 1e-3)
    every = [cell for entry in _STUDY.entries for cell in _final_cells(_STUDY, entry, rates)]
    failures = cells.run_cells(every, tmp_path)
    assert failures == {
        "seeds/teacher/0.001/1": "out of luck",
        "seeds/offline/0.001/1": "its teacher, seeds/teacher/0.001/1, has not finished",
    }
    last, config, teacher = trained[-1]
    assert (last, teacher) == (tmp_path / "seeds/offline/0.001/0", tmp_path / "seeds/teacher/0.001/0")
    assert config.distillation.teacher_from == "seeds/teacher/0.001/0"  # wherever the study lies
    assert (config.distillation.temperature, config.train.seed) == (4.0, 0)
    assert all(teacher is None for _, _, teacher in trained[:-1])
    (tmp_path / "seeds/teacher/0.001/0/summary.json").unlink()
    assert "seeds/offline/0.001/0" not in cells.run_cells(every, tmp_path)  # it has finished


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"teachers": {"offline": "techer"}}, "config.teachers has 'techer' for 'offline', exp"),
        ({"teachers": {"alone": "offline"}}, "config.teachers has 'offline' for 'alone', exp"),
        ({"learning_rates": (1e-3, 2e-3)}, "'offline' of config.teachers has no optimizer.lea"),
    ],
)
def test_a_wrong_teacher_is_one_sentence(changes, sentence):
    with pytest.raises(UserError, match=sentence):
        check_comparison(dataclasses.replace(_STUDY, **changes))


@pytest.mark.parametrize("arguments", ["", ":grade=1"])
def test_every_entry_of_the_study_is_a_run(arguments):
    config = config_file.load_config([f"--config={_CONFIGS / 'distill_study.py'}{arguments}"], CompareConfig)
    check_comparison(config)
    runs = {
        entry: _final_cells(config, entry, dict.fromkeys(config.entries, 2e-3))[0].config
        for entry in config.entries
    }
    for run in runs.values():
        models.build(run, random_schema())
    (taught,) = config.teachers
    grade = runs[taught].model.grade
    online, offline = runs[f"LightSUAN {grade}, online"], runs[taught]
    assert online.distillation.online and not offline.distillation.online
    student, teacher = runs[f"LightSUAN {grade}, alone"].model, runs[config.teachers[taught]].model
    assert online.model == offline.model == student
    assert online.distillation.teacher == teacher
    assert (runs[config.reference].model.grade, teacher.grade) == (student.grade + 1, student.grade + 2)


def test_every_cell_of_the_sweep_is_a_run():
    config = config_file.load_config([f"--config={_CONFIGS / 'distill_sweep.py'}"], SweepConfig)
    every = cells_of(config)
    assert len(every) == 20
    assert {type(cell.config) for cell in every} == {DistillConfig}
    assert {cell.config.distillation.temperature for cell in every} == {1.0, 2.0, 4.0}


def test_the_config_of_one_distillation_is_one():
    path = _CONFIGS / "distill.py"
    config = config_file.load_config([f"--config={path}", "--config.distillation.online=True"], DistillConfig)
    models.build(config, random_schema())
    assert config.distillation.teacher.grade > config.model.grade
