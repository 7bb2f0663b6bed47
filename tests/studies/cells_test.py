import pytest

from suan_jax.config import Config, DataConfig
from suan_jax.errors import Preempted, UserError
from suan_jax.files import read_json, write_json
from suan_jax.models.din import Din
from suan_jax.models.hstu import Hstu
from suan_jax.studies import CompareConfig, cells
from suan_jax.studies.cells import Cell, run_cells, with_fields

_BASE = Config(model=Din(embedding_width=16, head=(8,)), data=DataConfig(max_len=7))


@pytest.mark.smoke
def test_fields_are_set_on_a_copy():
    changed = with_fields(_BASE, {"model.name": "hstu", "model.layers": 3, "data.max_len": 9})
    assert changed.model == Hstu(embedding_width=16, head=(8,), layers=3)  # what models share is kept
    assert changed.data.max_len == 9
    assert _BASE == Config(model=Din(embedding_width=16, head=(8,)), data=DataConfig(max_len=7))


def test_a_cell_of_a_study_is_a_plain_run():
    study = CompareConfig(model=Din(), entries={"DIN": {}})
    assert type(with_fields(study, {})) is Config


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"model.nmae": "din"}, r"config.model.nmae is not a field, the nearest is config.model.name"),
        ({"model.name": "dinn"}, r"config.model.name is 'dinn', the nearest model is 'din'"),
        ({"data": 1}, r"config.data is a group of fields"),
        ({"data.max_len": 0}, r"config.data.max_len is 0, expected a positive number"),
        ({"model.softmax": 3}, r"config.model.softmax is 3, expected bool"),
    ],
)
def test_a_wrong_field_is_one_sentence(fields, sentence):
    with pytest.raises(UserError, match=sentence):
        with_fields(_BASE, fields)


@pytest.fixture
def trained(monkeypatch):
    """Seeds that a stand-in for training was called with; seed 1 fails the first time."""
    calls = []

    def train(config, workdir):
        calls.append(config.train.seed)
        if config.train.seed == 1 and calls.count(1) == 1:
            raise ZeroDivisionError("of all things")
        if config.train.seed == 9:
            raise Preempted("stopped")
        workdir.mkdir(parents=True, exist_ok=True)
        write_json(workdir / "summary.json", {"seed": config.train.seed})
        return read_json(workdir / "summary.json")

    monkeypatch.setattr(cells, "train", train)
    return calls


def _cells(*seeds):
    return [Cell(f"a/{seed}", with_fields(_BASE, {"train.seed": seed})) for seed in seeds]


def test_a_failed_cell_does_not_stop_the_rest_and_is_tried_again(trained, tmp_path, capsys):
    summaries, failures = run_cells(_cells(0, 1, 2), tmp_path)
    assert {name: run["seed"] for name, run in summaries.items()} == {"a/0": 0, "a/2": 2}
    assert list(failures) == ["a/1"]
    assert failures["a/1"].startswith("ZeroDivisionError in cells_test.py, line ")
    assert "of all things" in capsys.readouterr().err
    summaries, failures = run_cells(_cells(0, 1, 2), tmp_path)
    assert list(summaries) == ["a/0", "a/1", "a/2"]
    assert not failures


def test_a_stop_is_no_failure(trained, tmp_path):
    with pytest.raises(Preempted):
        run_cells(_cells(0, 9, 2), tmp_path)
    assert trained == [0, 9]
