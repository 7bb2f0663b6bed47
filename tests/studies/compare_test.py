import csv
import dataclasses
import json
import math
import pathlib

import numpy as np
import pytest

from suan_jax import config_file, models
from suan_jax.config import Config
from suan_jax.config_dict import to_dict
from suan_jax.errors import UserError
from suan_jax.evaluation import metrics
from suan_jax.files import read_json, write_array, write_json
from suan_jax.models.din import Din
from suan_jax.studies import CompareConfig, compare
from suan_jax.studies.compare_report import markdown, print_comparison, write_comparison
from suan_jax.studies.config_fields import with_fields
from tests.drawn import words
from tests.random_batch import random_schema
from tests.studies.stand_in import train_by

_BEST = {"din": 1e-3, "suan": 4e-3, "hstu": 2e-3, "loopctr": 1e-3}  # of the stand-in below
_SKILL = {"din": 0.5, "suan": 1.5, "hstu": 1.0, "loopctr": 0.7}


def _with_loops(table, trained):
    """Scores of a looped model that knows more with every loop, the headline without any, and its summary."""
    depths = np.stack([table["logit"] + 0.5 * loop * table["label"] for loop in range(trained + 1)], axis=1)
    looped = np.empty(len(table), [*table.dtype.descr, ("depths", np.float32, (trained + 1,))])
    for name in table.dtype.names:
        looped[name] = table[name]
    looped["depths"] = depths
    flops = [1e6 + 1e5 * loop for loop in range(trained + 1)]
    aucs = [metrics.auc(table["label"], depths[:, loop]) for loop in range(trained + 1)]
    loops = {"loops_trained": trained, "inferred_loops": 0, "auc_by_loops": aucs, "flops_by_loops": flops}
    return looped, loops


@pytest.fixture
def trained(monkeypatch):
    """Configs that a stand-in for training was called with: scores of a known skill, no JAX."""
    calls = []
    random = np.random.default_rng(0)
    label = (random.uniform(size=400) < 0.4).astype(np.uint8)

    def train(config, workdir):
        calls.append(config)
        model, rate = config.model.name, config.optimizer.learning_rate
        if model == "hstu" and rate < 1e-3:
            raise MemoryError("too large")
        skill = _SKILL[model] - abs(np.log(rate / _BEST[model]))
        logit = skill * label + np.random.default_rng(config.train.seed).normal(size=400)
        table = np.empty(400, [("user", np.int64), ("label", np.uint8), ("logit", np.float32)])
        table["user"], table["label"], table["logit"] = np.arange(400) // 10, label, logit
        workdir.mkdir(parents=True, exist_ok=True)
        write_json(workdir / "config.json", to_dict(config))
        result = metrics.evaluate(table["user"], table["label"], table["logit"])
        if model == "loopctr":
            table, loops = _with_loops(table, config.model.trained_loops)
            result |= loops
        write_array(workdir / "scores.npy", table)
        rest = {"params": dict.fromkeys(("body", "head", "embedding"), 7), "flops_per_example": 1e6}
        rest |= {"model": model, "max_len": config.data.max_len, "device": "x", "examples_per_second": 5.0}
        write_json(workdir / "summary.json", {**result, **rest, "bayes_auc": 0.99})
        return read_json(workdir / "summary.json")

    train_by(monkeypatch, train)
    return calls


_ENTRIES = {
    "DIN": {"model.name": "din"},
    "SUAN": {"model.name": "suan"},
    "HSTU": {"model.name": "hstu"},
    "SUAN(L)": {"model.name": "suan", "data.max_len": 300, "optimizer.learning_rate": 4e-3},
}
_CONFIG = CompareConfig(model=Din(), entries=_ENTRIES, learning_rates=(5e-4, 1e-3, 2e-3, 4e-3))
_CONFIG.data.train_on = "train+validation"


@pytest.mark.smoke
def test_rates_are_tuned_on_the_validation_split_alone(trained, tmp_path):
    rows = {row["entry"]: row for row in compare(_CONFIG, tmp_path).rows}
    assert [rows[entry]["learning_rate"] for entry in _ENTRIES] == [1e-3, 4e-3, 2e-3, 4e-3]
    assert [rows[entry]["rate_at_edge"] for entry in _ENTRIES] == [False, True, False, False]
    assert [rows[entry]["rates_tried"] for entry in _ENTRIES] == [4, 4, 3, 0]  # one of HSTU fails
    assert [rows[entry]["rates_left"] for entry in _ENTRIES] == [0, 0, 1, 0]
    tuning = [config for config in trained if config.train.final_split == "validation"]
    assert len(tuning) == 3 * 4  # SUAN(L) has a rate of its own
    assert all(config.data.train_on == "train" for config in tuning)
    final = [config for config in trained if config.train.final_split == "test"]
    assert len(final) == 4 * 3
    assert all(config.data.train_on == "train+validation" for config in final)
    assert all(type(config) is Config for config in trained)


def test_differences_are_paired_and_measured_against_the_reference(trained, tmp_path):
    comparison = compare(_CONFIG, tmp_path)
    rows = {row["entry"]: row for row in comparison.rows}
    runs = {
        (entry, seed): np.load(tmp_path / f"seeds/{entry}/{rate}/{seed}/scores.npy")
        for entry, rate in (("DIN", 0.001), ("SUAN", 0.004))
        for seed in range(3)
    }
    aucs = {key: metrics.auc(run["label"], run["logit"]) for key, run in runs.items()}
    differences = [aucs["SUAN", seed] - aucs["DIN", seed] for seed in range(3)]
    row = rows["SUAN"]
    assert row["auc"] == pytest.approx(np.mean([aucs["SUAN", seed] for seed in range(3)]))
    assert row["difference"] == pytest.approx(np.mean(differences))
    assert row["difference_se"] == pytest.approx(np.std(differences, ddof=1) / np.sqrt(3))
    base = rows["DIN"]["auc"]
    assert row["rela_impr"] == pytest.approx(((row["auc"] - 0.5) / (base - 0.5) - 1) * 100)
    assert row["difference_se_test"] < row["auc_se_test"]
    assert rows["DIN"]["difference"] is None
    assert comparison.best_possible == 0.99


def test_the_gain_is_of_the_seeds_that_both_have(trained, tmp_path):
    whole = {row["entry"]: row for row in compare(_CONFIG, tmp_path).rows}
    (tmp_path / "seeds/DIN/0.001/2/summary.json").unlink()
    rows = {row["entry"]: row for row in compare(_CONFIG, tmp_path, only=["SUAN"]).rows}
    auc = {
        entry: [
            json.loads((tmp_path / f"seeds/{entry}/{rate}/{seed}/summary.json").read_text())["auc"]
            for seed in range(2)
        ]
        for entry, rate in (("DIN", 0.001), ("SUAN", 0.004))
    }
    gain = (np.mean(auc["SUAN"]) - 0.5) / (np.mean(auc["DIN"]) - 0.5) - 1
    assert rows["SUAN"]["rela_impr"] == pytest.approx(100 * gain)
    assert rows["SUAN"]["auc"] == whole["SUAN"]["auc"]


def test_a_rate_that_is_found_better_later_is_trained_beside_the_first(trained, tmp_path):
    few = dataclasses.replace(_CONFIG, learning_rates=(1e-3, 2e-3))
    assert compare(few, tmp_path).rows[1]["learning_rate"] == 2e-3
    rows = {row["entry"]: row for row in compare(_CONFIG, tmp_path).rows}
    assert rows["SUAN"]["learning_rate"] == 4e-3
    assert sorted(path.name for path in (tmp_path / "seeds/SUAN").iterdir()) == ["0.002", "0.004"]


def test_names_are_no_mathematics_and_no_columns(trained, tmp_path):
    pytest.importorskip("matplotlib", reason="the extra `figures` is not installed")
    entries = {"DIN": {"model.name": "din"}, "$x_{L$ | y": {"model.name": "loopctr"}}
    comparison = compare(dataclasses.replace(_CONFIG, entries=entries), tmp_path)
    write_comparison(comparison, tmp_path)
    assert "$x_{L$ | y" in words(tmp_path / "compare_loops.png")
    assert "| $x_{L$ \\| y | " in (tmp_path / "compare.md").read_text()


def _without_clicks(folder):
    """Leaves the summaries below as a split without clicks does."""
    for path in folder.rglob("summary.json"):
        write_json(path, {**read_json(path), "auc": None, "auc_se": None, "gauc": None})


def test_without_clicks_there_is_a_table_or_a_sentence(trained, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="the extra `figures` is not installed")
    compare(_CONFIG, tmp_path)
    _without_clicks(tmp_path / "seeds/SUAN")
    comparison = compare(_CONFIG, tmp_path, only=["HSTU"])
    row = comparison.rows[1]
    assert {row[name] for name in ("auc", "auc_se_test", "difference", "rela_impr")} == {None}
    write_comparison(comparison, tmp_path)
    print_comparison(comparison, tmp_path)
    assert words(tmp_path / "compare.png") >= {"DIN"} and "SUAN" not in words(tmp_path / "compare.png")
    _without_clicks(tmp_path / "seeds")
    write_comparison(compare(_CONFIG, tmp_path, only=["HSTU"]), tmp_path)
    _without_clicks(tmp_path / "tuning/DIN")
    with pytest.raises(UserError, match="no learning rate of 'DIN' has an AUC to be chosen by"):
        compare(_CONFIG, tmp_path, only=["HSTU"])


def test_scores_of_other_examples_are_refused(trained, tmp_path):
    compare(_CONFIG, tmp_path)
    path = tmp_path / "seeds/SUAN/0.004/1/scores.npy"
    scores = np.load(path)
    write_array(path, scores[::-1])
    with pytest.raises(UserError, match="scores of seed 1 of 'SUAN' are not of the reference's examples"):
        compare(_CONFIG, tmp_path, only=["HSTU"])
    write_array(path, scores["logit"])
    with pytest.raises(UserError, match=r"scores\.npy is missing or damaged"):
        compare(_CONFIG, tmp_path, only=["HSTU"])


def test_scores_that_are_not_the_summary_s_are_refused(trained, tmp_path):
    compare(_LOOPED, tmp_path)
    sentence = r"scores\.npy does not have the AUC of the summary\.json beside it: remove that"
    for name, damaged in (("logit", -1.0), ("logit", np.nan), ("depths", -1.0), ("label", 0), ("label", 7)):
        path = tmp_path / "seeds/L___2_/0.001/1/scores.npy"
        scores = np.load(path)
        whole = scores.copy()
        scores[name][:100] = damaged
        write_array(path, scores)
        with pytest.raises(UserError, match=sentence):
            compare(_LOOPED, tmp_path, only=["DIN"])
        write_array(path, whole)
    write_array(path, whole[["user", "label", "logit"]])
    with pytest.raises(UserError, match=sentence):
        compare(_LOOPED, tmp_path, only=["DIN"])


@pytest.mark.parametrize("name", ["device", "flops_by_loops"])
def test_a_summary_without_a_column_is_refused(name, trained, tmp_path):
    compare(_LOOPED, tmp_path)
    path = tmp_path / "seeds/L___2_/0.001/1/summary.json"
    write_json(path, {key: value for key, value in read_json(path).items() if key != name})
    with pytest.raises(UserError, match=rf"1/summary\.json has no {name}: remove it and repeat the command"):
        compare(_LOOPED, tmp_path, only=["DIN"])


def test_what_has_finished_is_not_run_again_and_a_failure_is_told(trained, tmp_path, capsys):
    first = compare(_CONFIG, tmp_path)
    assert list(first.failures) == ["tuning/HSTU/0.0005"]
    assert first.failures["tuning/HSTU/0.0005"].startswith("MemoryError in compare_test.py")
    assert not first.missing
    print_comparison(first, tmp_path)
    assert "failed: tuning/HSTU/0.0005: MemoryError" in capsys.readouterr().out
    seen = len(trained)
    compare(dataclasses.replace(_CONFIG, seeds=4), tmp_path)
    new = [config for config in trained[seen:] if config.train.seed == 3]
    assert [config.model.name for config in new] == ["din", "suan", "hstu", "suan"]


def test_another_comparison_in_the_same_directory_is_refused_before_anything_runs(trained, tmp_path):
    compare(_CONFIG, tmp_path)
    seen = len(trained)
    other = dataclasses.replace(_CONFIG, train=dataclasses.replace(_CONFIG.train, steps=9))
    with pytest.raises(UserError, match=r"is of another study: .*DIN/0.0005 holds .*train.steps: 0 != 9"):
        compare(other, tmp_path)
    assert len(trained) == seen


def test_some_entries_can_be_run_alone(trained, tmp_path):
    comparison = compare(_CONFIG, tmp_path, ["SUAN"])
    assert {config.model.name for config in trained} == {"suan"}
    assert [row["entry"] for row in comparison.rows] == ["SUAN"]
    assert comparison.rows[0]["difference"] is None  # the reference has no result yet
    assert comparison.missing == ["DIN", "HSTU", "SUAN(L)"]
    assert compare(_CONFIG, tmp_path).rows[1]["difference"] > 0


def test_the_files_hold_the_table(trained, tmp_path):
    pytest.importorskip("matplotlib", reason="the extra `figures` is not installed")
    comparison = compare(_CONFIG, tmp_path)
    write_comparison(comparison, tmp_path)
    rows = list(csv.DictReader((tmp_path / "compare.csv").read_text().splitlines()))
    assert [row["entry"] for row in rows] == list(_ENTRIES)
    assert float(rows[1]["auc"]) == comparison.rows[1]["auc"]
    runs = list(csv.DictReader((tmp_path / "runs.csv").read_text().splitlines()))
    assert [run["entry"] for run in runs] == [entry for entry in _ENTRIES for _ in range(3)]
    assert np.mean([float(run["auc"]) for run in runs[:3]]) == pytest.approx(comparison.rows[0]["auc"])
    text = markdown(comparison)
    assert (tmp_path / "compare.md").read_text() == text
    assert "| SUAN(L) | 300 |" in text
    assert "| 0.004* |" in text and "| 0.002† |" in text and "† some of its learning rates" in text
    assert "best possible AUC is 0.9900" in text
    assert (tmp_path / "compare.png").exists()
    shown = words(tmp_path / "compare.png")
    assert shown >= {*_CONFIG.entries, "forward MFLOPs per example", "AUC, mean of 3 seeds ± standard error"}


_LOOPED = dataclasses.replace(
    _CONFIG,
    entries={
        "DIN": {"model.name": "din"},
        "L(0/0)": {"model.name": "loopctr", "model.trained_loops": 0},
        "L(·/2)": {"model.name": "loopctr", "model.trained_loops": 2},
    },
    reference="L(0/0)",
)


def test_a_looped_entry_has_a_row_for_each_number_of_loops(trained, tmp_path):
    comparison = compare(_LOOPED, tmp_path)
    by_loops = {
        (row["loops_trained"], row["loops_inferred"], row["entry"]): row for row in comparison.loop_rows
    }
    assert set(by_loops) == {(0, 0, "L(0/0)"), *((2, loops, "L(·/2)") for loops in range(3))}
    headline = {row["entry"]: row for row in comparison.rows}["L(·/2)"]
    for name, value in headline.items():
        assert by_loops[2, 0, "L(·/2)"][name] == pytest.approx(value), name
    base, runs = (
        [np.load(tmp_path / f"seeds/{entry}/0.001/{seed}/scores.npy") for seed in range(3)]
        for entry in ("L_0_0_", "L___2_")
    )
    differences = [
        metrics.auc(mine["label"], mine["depths"][:, 2]) - metrics.auc(other["label"], other["logit"])
        for mine, other in zip(runs, base, strict=True)
    ]
    row = by_loops[2, 2, "L(·/2)"]
    assert row["difference"] == pytest.approx(np.mean(differences)) and row["difference"] > 0.05
    assert row["difference_se"] == pytest.approx(np.std(differences, ddof=1) / np.sqrt(3))
    losses = [metrics.log_loss(mine["label"], mine["depths"][:, 2]) for mine in runs]
    assert row["log_loss"] == pytest.approx(np.mean(losses))
    assert row["flops_per_example"] == 1.2e6
    assert by_loops[0, 0, "L(0/0)"]["difference"] == 0


def test_the_files_hold_the_table_by_loops(trained, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="the extra `figures` is not installed")
    comparison = compare(_LOOPED, tmp_path)
    write_comparison(comparison, tmp_path)
    runs = list(csv.DictReader((tmp_path / "runs.csv").read_text().splitlines()))
    assert [run["loops_inferred"] for run in runs if run["entry"] == "L(·/2)"] == ["0", "1", "2"] * 3
    rows = list(csv.DictReader((tmp_path / "compare_loops.csv").read_text().splitlines()))
    expected = [row["auc"] for row in comparison.loop_rows]
    assert [float(row["auc"]) for row in rows] == expected
    assert f"| L(·/2) | 2 | 1 | {expected[2]:.4f} ± " in (tmp_path / "compare.md").read_text()
    print_comparison(comparison, tmp_path)
    assert "by the loops that a model is inferred with" in capsys.readouterr().out
    assert (tmp_path / "compare_loops.png").exists()
    assert words(tmp_path / "compare_loops.png") >= {*_LOOPED.entries, "loops at inference"}


def test_loops_without_clicks_have_a_table_too(trained, tmp_path):
    pytest.importorskip("matplotlib", reason="the extra `figures` is not installed")
    compare(_LOOPED, tmp_path)
    _without_clicks(tmp_path / "seeds/DIN")
    comparison = compare(_LOOPED, tmp_path, only=["L(0/0)"])
    write_comparison(comparison, tmp_path)
    assert "DIN" not in words(tmp_path / "compare_loops.png")


def test_every_entry_of_the_loop_study_is_a_model():
    path = pathlib.Path(__file__).parents[2] / "configs" / "loops.py"
    config = config_file.load_config([f"--config={path}"], CompareConfig)
    assert config.reference in config.entries
    loops = {}
    for entry, fields in config.entries.items():
        run = with_fields(config, fields)
        models.build(run, random_schema())
        loops[entry] = run.model.loops()
    trained = [loops[entry].trained for entry in loops if entry.startswith("LoopCTR")]
    assert trained == [0, 1, 2, 3]
    assert loops["StackCTR(3)"] == loops["last depth's loss"] == (3, 3)
    assert loops["DIN"] is None


def test_a_comparison_without_loops_has_no_table_by_loops(trained, tmp_path, capsys):
    comparison = compare(_CONFIG, tmp_path, ["DIN"])
    assert not comparison.loop_rows
    assert "inferred" not in markdown(comparison)
    write_comparison(comparison, tmp_path)
    assert not list(tmp_path.glob("compare_loops.*"))


@pytest.mark.parametrize(
    ("changes", "only", "sentence"),
    [
        (
            {"reference": "DINN"},
            (),
            "'DINN' is no entry of the comparison, the nearest is 'DIN' of DIN, S",
        ),
        ({}, ("HSUT",), "'HSUT' is no entry of the comparison, the nearest is 'HSTU'"),
        ({"seeds": 0}, (), "config.seeds is 0, expected at least 1"),
        ({"learning_rates": ()}, (), "config.learning_rates is empty"),
        (
            {"learning_rates": (1e-3, 1.0000001e-3)},
            (),
            "config.learning_rates has 0.001 twice, to six digits",
        ),
        ({"entries": {}}, (), "config.entries is empty"),
        ({"entries": {"A/B": {}, "A:B": {}}}, (), "has 'A/B' and 'A:B', whose runs would both be in A_B"),
        ({"entries": {"..": {}}}, (), r"config.entries has '\.\.', expected the name"),
        ({"entries": {"a\nb": {}}}, (), "expected the name of a row"),
        ({"entries": {"漢" * 90: {}}}, (), "expected a name of at most 100 bytes"),
        ({"entries": {"A": None}}, (), "config.entries has None for 'A'"),
        (
            {"entries": {"A": {"data.synthetic.seed": 1}}},
            (),
            "'A' of config.entries sets data.synthetic.seed",
        ),
        ({"entries": {"DIN": {}, "A": {3: 4}}}, (), "'A' of config.entries sets 3, expected the name of a"),
        (
            {"entries": {"DIN": {}, "A": {"optimizer.learning_rate": "x"}}},
            (),
            "'A' of config.entries sets optimizer.learning_rate to 'x', expected a number",
        ),
        (
            {"entries": {"DIN": {}, "A": {"optimizer.learning_rate": math.nan}}},
            (),
            "config.optimizer.learning_rate is nan, expected",
        ),
        ({"entries": {"A": {"train.final_split": "validation"}}}, (), "sets train.final_split"),
    ],
)
def test_a_wrong_comparison_is_one_sentence_and_runs_nothing(changes, only, sentence, trained, tmp_path):
    with pytest.raises(UserError, match=sentence):
        compare(dataclasses.replace(_CONFIG, **changes), tmp_path, only)
    assert not list(tmp_path.iterdir())
