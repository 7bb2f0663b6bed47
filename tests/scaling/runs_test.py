import polars as pl
import pytest

from suan_jax.errors import UserError
from suan_jax.files import write_json
from suan_jax.scaling.forms import CHINCHILLA, POWER
from suan_jax.scaling.runs import read_points

_ROWS = {
    "model": ["suan", "suan", "din", "suan"],
    "seed": [0, 1, 0, 0],
    "max_len": [100, 100, 100, 50],
    "params_body": [100, 100, 100, 200],
    "auc": [0.7, 0.71, 0.6, 0.72],
    "auc_se": [0.01, 0.01, 0.02, 0.01],
    "log loss": [0.5, 0.49, 0.6, 0.48],
}


def _csv(tmp_path, **changes):
    path = tmp_path / "runs.csv"
    pl.DataFrame({**_ROWS, **changes}, strict=False).write_csv(path)
    return path


@pytest.mark.smoke
def test_a_table_is_read_and_what_is_left_out_is_told(tmp_path):
    path = _csv(tmp_path, auc=[0.7, None, 0.6, 0.72])
    points = read_points(path, POWER, ["params_body"], "auc", "model = 'suan'")
    assert points.x.tolist() == [[100], [200]] and points.y.tolist() == [0.7, 0.72]
    assert points.y_se.tolist() == [0.01, 0.01]
    assert points.excluded == [{"runs": 1, "why": "not model = 'suan'"}, {"runs": 1, "why": "no auc"}]
    assert read_points(tmp_path, POWER, ["params_body"], "auc", "model = 'suan'").y.tolist() == [0.7, 0.72]


def test_columns_may_be_expressions(tmp_path):
    points = read_points(_csv(tmp_path), CHINCHILLA, ["max_len", 'params_body / 3 AS "third"'], "log loss")
    assert points.x[0].tolist() == [100, pytest.approx(100 / 3)]
    assert points.y.tolist() == _ROWS["log loss"] and points.y_se is None


def test_summaries_below_a_directory_are_flattened(tmp_path):
    for index, auc in enumerate((0.7, 0.72)):
        (tmp_path / f"deep/{index}").mkdir(parents=True)
        params = {"body": 10**index, "head": 5}
        write_json(tmp_path / f"deep/{index}/summary.json", {"auc": auc, "auc_se": 0.01, "params": params})
    points = read_points(tmp_path, POWER, ["params_body"], "auc")
    assert points.x.tolist() == [[1], [10]] and points.y.tolist() == [0.7, 0.72]


def test_a_mixture_is_told(tmp_path):
    warnings = read_points(_csv(tmp_path), POWER, ["params_body"], "auc").warnings
    assert warnings == ["points of several models (din, suan) are fitted together"]
    mixed = _csv(tmp_path, max_len=[100, 50, 100, 50], model=["suan"] * 4)
    assert read_points(mixed, POWER, ["params_body"], "auc").warnings == [
        "points of equal x differ in max_len"
    ]
    partly = _csv(tmp_path, auc_se=[0.1, None, 0.1, 0.1], model=["suan"] * 4)
    points = read_points(partly, POWER, ["params_body"], "auc")
    assert points.y_se is None and "some runs have no auc_se" in points.warnings[0]


@pytest.mark.parametrize(
    ("changes", "x", "y", "where", "sentence"),
    [
        ({}, ["params_bdy"], "auc", "", r"runs.csv has no column 'params_bdy', the nearest is 'params_body'"),
        ({}, ["params_body"], "aux", "", "has no column 'aux', the nearest is 'auc'"),
        (
            {},
            ["params_body * nothing"],
            "auc",
            "",
            "has no column 'params_body . nothing', and it is no expr",
        ),
        ({}, ["(("], "auc", "", "has no column"),
        ({}, ["params_body", "seed"], "auc", "", "names 2 columns, expected 1 for --form=power: x"),
        (
            {"auc": [0.7, "high", 0.6, 0.7]},
            ["params_body"],
            "auc",
            "",
            "'auc', row 2 is 'high', expected a num",
        ),
        (
            {"auc": [0.7, 0.7, float("nan"), 0.7]},
            ["params_body"],
            "auc",
            "",
            "'auc', row 3 is nan, expected a fin",
        ),
        (
            {"params_body": [1, 0, 2, 3]},
            ["params_body"],
            "auc",
            "",
            "'params_body', row 2 is 0, expected a pos",
        ),
        (
            {"params_body": [1, 2, -4, 3]},
            ["params_body"],
            "auc",
            "",
            "'params_body', row 3 is -4, expected a p",
        ),
        ({}, ["params_body"], "auc", "modl = 'suan'", "--where=modl = 'suan' is no condition on the columns"),
        ({}, ["params_body"], "auc", "AND", "--where=AND is no condition"),
        ({}, ["params_body"], "auc", "seed + 1", "--where=seed . 1 is no condition"),
    ],
)
def test_wrong_runs_are_one_sentence(tmp_path, changes, x, y, where, sentence):
    with pytest.raises(UserError, match=sentence) as raised:
        read_points(_csv(tmp_path, **changes), POWER, x, y, where)
    assert "\n" not in str(raised.value)


def test_no_runs_are_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"nothing.csv does not exist"):
        read_points(tmp_path / "nothing.csv", POWER, ["x"], "auc")
    with pytest.raises(UserError, match=r"holds neither runs.csv nor a work directory"):
        read_points(tmp_path, POWER, ["x"], "auc")
    (tmp_path / "runs.csv").write_text("")
    with pytest.raises(UserError, match="is not a table in CSV"):
        read_points(tmp_path, POWER, ["x"], "auc")
