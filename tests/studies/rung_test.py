import csv
import json
import types

import numpy as np
import pytest

from suan_jax.config import TrainConfig
from suan_jax.config_dict import to_dict
from suan_jax.errors import UserError
from suan_jax.files import write_json
from suan_jax.models.suan import Suan
from suan_jax.runs import csv_text, flat
from suan_jax.scaling.report import fit_runs, write_report
from suan_jax.studies import SweepConfig, cells, grid, next_rung, rung
from suan_jax.studies.config_fields import with_fields
from suan_jax.studies.rung_report import print_rung

_WIDTHS = (8, 16, 32, 64, 128, 256)


def _config(axes):
    return SweepConfig(model=Suan(heads=2), train=TrainConfig(batch_size=64), cells=grid(axes))


def _planned(config):
    """The point of a run, in place of what a model and a log would say."""
    examples = round(1e6 * config.data.train_fraction)
    body = 16 * config.model.width**2
    point = {"model": config.model.name, "seed": config.train.seed, "examples": examples}
    return {**point, "params": {"body": body}, "train_flops": 6.0 * (body + 1e4) * examples}


def _auc(row, random):
    return 0.8 - 1.5 * row["params_body"] ** -0.35 - 8 * row["examples"] ** -0.5 + random.normal() * 2e-4


@pytest.fixture(autouse=True)
def trained(monkeypatch):
    """Names of the cells that a stand-in for training made, with AUC of a law; seed 9 always fails."""
    names, random = [], np.random.default_rng(0)

    def set_up(config):
        return types.SimpleNamespace(config=config, abstract=types.SimpleNamespace(params=None))

    def train_together(configs):
        for workdir, config in configs.items():
            predictions = json.loads((workdir.parents[1] / "predict.json").read_text())
            assert "predicted" in predictions["points"][0]  # told before it is known
            if config.train.seed == 9:
                raise UserError("out of luck")
            if (workdir / "summary.json").exists():
                continue
            names.append(workdir.name)
            workdir.mkdir(parents=True)
            write_json(workdir / "config.json", to_dict(config))
            point = _planned(config)
            write_json(workdir / "summary.json", {**point, "auc": _auc(flat(point), random), "auc_se": 1e-3})
        return {workdir: {} for workdir in configs}

    monkeypatch.setattr(rung, "set_up", set_up)
    monkeypatch.setattr(rung, "planned", lambda setup, params: _planned(setup.config))
    monkeypatch.setattr(cells, "train_together", train_together)
    return names


def _fit(tmp_path, config, where="", x="params_body", form="power"):
    """fit.json of what the cells of `config` would score."""
    random = np.random.default_rng(1)
    rows = [flat(_planned(with_fields(config, fields))) for fields in config.cells]
    rows = [{**row, "auc": _auc(row, random), "auc_se": 1e-3} for row in rows]
    (tmp_path / "runs.csv").write_text(csv_text(rows))
    write_report(fit_runs(tmp_path / "runs.csv", x, "auc", form, where), tmp_path / "fit")
    return tmp_path / "fit" / "fit.json"


def test_the_next_size_is_predicted_then_measured(tmp_path, trained, capsys):
    axes = {"model.width": _WIDTHS, "train.seed": range(2)}
    fit = _fit(tmp_path, _config(axes))
    more = _config({**axes, "model.width": (*_WIDTHS, 1024, 512)})
    found = next_rung(more, fit, tmp_path / "sweep", together=2)
    assert trained == ["width=512,seed=0", "width=512,seed=1"]  # one step, not two
    print_rung(found, tmp_path)
    assert "width=512,seed=1" in capsys.readouterr().out
    for point in found.points:
        assert point["low"] < point["predicted"] < point["high"] and point["measured_se"] == 1e-3
        assert point["inside"] and abs(point["error"]) < 1e-3
    content = json.loads((tmp_path / "sweep" / "predict.json").read_text())
    assert content["points"] == found.points and 0 < content["rmse"] < 1e-3
    rmse = {rival["form"]: rival["rmse"] for rival in found.rivals}
    assert rmse["constant"] > rmse["log"] > 5 * content["rmse"]
    rows = list(csv.DictReader((tmp_path / "sweep" / "runs.csv").read_text().splitlines()))
    assert [row["model_width"] for row in rows] == ["512", "512"]
    assert next_rung(more, fit, tmp_path / "sweep").points == found.points
    assert len(trained) == 2


def test_one_step_in_each_column_and_of_the_fitted_kind_alone(tmp_path, trained):
    axes = {"model.name": ["suan", "bst"], "model.width": _WIDTHS[:4], "data.train_fraction": (0.1, 0.3)}
    fit = _fit(tmp_path, _config(axes), "model = 'suan'", "params_body,examples", "chinchilla")
    more = {"model.width": _WIDTHS, "data.train_fraction": (0.1, 0.3, 0.6, 1.0)}
    found = next_rung(_config({**axes, **more}), fit, tmp_path / "sweep")
    shares = {width: [0.6] for width in _WIDTHS[:4]} | {128: [0.1, 0.3, 0.6]}
    assert trained == [
        f"name=suan,width={width},train_fraction={share}" for width in shares for share in shares[width]
    ]
    assert {tuple(point["x"]) for point in found.points} == {("params_body", "examples")}


def test_a_failed_cell_is_told(tmp_path):
    fit = _fit(tmp_path, _config({"model.width": _WIDTHS}))
    more = _config({"model.width": (*_WIDTHS, 512), "train.seed": (0, 9)})
    found = next_rung(more, fit, tmp_path / "sweep")
    assert list(found.failures.values()) == ["out of luck"]
    assert [point["cell"] for point in found.points] == ["width=512,seed=0"]


@pytest.mark.parametrize("where", ["", "train_flops > 0"])
def test_nothing_beyond_is_refused_before_anything_runs(tmp_path, trained, where):
    config = _config({"model.width": _WIDTHS})
    fit = _fit(tmp_path, config, where)
    whose = f"the sweep that meets the fit's condition {where!r}" if where else "the sweep"
    with pytest.raises(UserError, match=f"no cell of {whose} lies beyond the fit, whose largest params_body"):
        next_rung(config, fit, tmp_path / "sweep")
    assert not trained and not (tmp_path / "sweep").exists()


def test_a_law_of_what_only_training_tells_is_refused(tmp_path):
    fit = _fit(tmp_path, _config({"model.width": _WIDTHS}), "auc > 0")
    with pytest.raises(UserError, match="the sweep before it is trained"):
        next_rung(_config({"model.width": (*_WIDTHS, 512)}), fit, tmp_path / "sweep")
