import pytest

from suan_jax.config import Config, DataConfig
from suan_jax.config_dict import to_dict
from suan_jax.errors import Preempted, UserError
from suan_jax.files import read_json, write_json
from suan_jax.models.din import Din
from suan_jax.models.hstu import Hstu
from suan_jax.studies import CompareConfig, cells
from suan_jax.studies.cells import Cell, raise_failures, run_cells
from suan_jax.studies.config_fields import with_fields

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

    def train_together(configs):
        seeds = [config.train.seed for config in configs.values()]
        calls.extend(seeds)
        if 1 in seeds and calls.count(1) == 1:
            raise ZeroDivisionError("of all things")
        if 9 in seeds:
            raise Preempted("stopped")
        for workdir, seed in zip(configs, seeds, strict=True):
            workdir.mkdir(parents=True, exist_ok=True)
            write_json(workdir / "config.json", to_dict(configs[workdir]))
            write_json(workdir / "summary.json", {"seed": seed, "trained_together": len(seeds)})
        return {workdir: read_json(workdir / "summary.json") for workdir in configs}

    monkeypatch.setattr(cells, "train_together", train_together)
    return calls


def _cells(*seeds):
    return [Cell(f"a/{seed}", with_fields(_BASE, {"train.seed": seed})) for seed in seeds]


def _summaries(workdir):
    runs = sorted(workdir.rglob("summary.json"))
    return {str(run.parent.relative_to(workdir)): read_json(run) for run in runs}


def test_a_failed_cell_does_not_stop_the_rest_and_is_tried_again(trained, tmp_path, capsys):
    failures = run_cells(_cells(0, 1, 2), tmp_path)
    assert {name: run["seed"] for name, run in _summaries(tmp_path).items()} == {"a/0": 0, "a/2": 2}
    assert list(failures) == ["a/1"]
    assert failures["a/1"].startswith("ZeroDivisionError in cells_test.py, line ")
    assert "of all things" in capsys.readouterr().err
    assert not run_cells(_cells(0, 1, 2), tmp_path)
    assert list(_summaries(tmp_path)) == ["a/0", "a/1", "a/2"]


def test_a_stop_is_no_failure(trained, tmp_path):
    with pytest.raises(Preempted):
        run_cells(_cells(0, 9, 2), tmp_path)
    assert trained == [0, 9]


@pytest.mark.parametrize("together", [1, 2, 4])
def test_cells_of_one_program_train_together(trained, tmp_path, together):
    trained.append(1)  # so that none fails
    one = [*_cells(0, 1), *(Cell(f"b/{seed}", with_fields(_BASE, {"data.max_len": seed})) for seed in (5, 6))]
    assert not run_cells([*one, *_cells(2)], tmp_path, together)
    assert {name: run["trained_together"] for name, run in _summaries(tmp_path).items()} == {
        "a/0": min(together, 2 + together // 4),
        "a/1": min(together, 2 + together // 4),
        "b/5": 1,
        "b/6": 1,
        "a/2": 3 if together == 4 else 1,
    }


def test_a_job_with_failed_cells_ends_with_their_names():
    raise_failures({})
    with pytest.raises(UserError, match=r"^2 cells failed \(a, b\): repeat the command to try again"):
        raise_failures({"a": "out of luck", "b": "too large"})


def test_together_is_a_positive_number(tmp_path):
    with pytest.raises(UserError, match="--together is 0, expected at least 1"):
        run_cells(_cells(0), tmp_path, together=0)


def test_a_full_disk_is_named_however_long_the_error(tmp_path, monkeypatch):
    def fail(group, directory):
        error = ValueError("x" * 400 + ": File too large")
        error.filename = "runs/x/checkpoints"
        raise error

    monkeypatch.setattr(cells, "_train", fail)
    failures = run_cells([Cell("a", _BASE)], tmp_path)
    remedy = "raise the limit on file sizes and repeat the command"
    assert failures == {"a": f"cannot write runs/x/checkpoints: File too large: {remedy}"}
