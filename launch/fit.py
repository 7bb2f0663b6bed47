"""Fits a scaling law to runs, with intervals, rivals and held-out predictions, and draws it.

    python launch/fit.py --runs=DIR_OR_CSV --out=DIR --x=COLUMN --y=COLUMN --form=power|log|chinchilla|loops
        [--where=CONDITION] [--by=COLUMN,...] [--compute=COLUMN]

Runs are the rows of a CSV file, of a sweep's runs.csv, or the summary.json of all work directories below a
directory. Forms: power is E - A/x^alpha of an AUC, E + A/x^alpha of a loss; log is c + k ln x; chinchilla
adds B/D^beta and takes --x=N,D; loops has the size N_once + loops^phi N_recurrent and takes
--x=ONCE,RECURRENT,LOOPS. A column may also be an expression of columns in SQL, and --where is a condition in
SQL. Writes fit.json, fit.png and fit.svg. With --by there is one law for each value of a column, such as each
model, and points where there is none: series.json, series.png and series.svg. With chinchilla, and training
FLOPs in the runs, the figure and fit.json show how a budget is best divided.
"""

from collections.abc import Sequence

from absl import flags

from suan_jax import cli
from suan_jax.paths import path_of
from suan_jax.scaling.forms import FORMS
from suan_jax.scaling.report import fit_runs, print_report, write_report
from suan_jax.scaling.series import fit_series, print_series, write_series

_RUNS = flags.DEFINE_string("runs", None, "CSV file, or directory of runs", required=True)
_OUT = flags.DEFINE_string("out", None, "directory for fit.json, fit.png and fit.svg", required=True)
_X = flags.DEFINE_string("x", None, "column of sizes; several, separated by commas", required=True)
_Y = flags.DEFINE_string("y", None, "column of what was measured, such as auc or log_loss", required=True)
_FORM = flags.DEFINE_enum("form", "power", list(FORMS), "form of the law: " + ", ".join(FORMS))
_WHERE = flags.DEFINE_string("where", "", "condition that runs must meet, such as model = 'suan'")
_BY = flags.DEFINE_string("by", "", "columns, separated by commas: a law for each of their values")
_COMPUTE = flags.DEFINE_string("compute", "", "column of training FLOPs; train_flops if there is one")


def main(argv: Sequence[str]) -> None:
    """Fits, prints and writes."""
    del argv
    runs, out, law = path_of(_RUNS.value), path_of(_OUT.value), (_X.value, _Y.value, _FORM.value)
    if _BY.value:
        series = fit_series(runs, *law, _BY.value, _WHERE.value, _COMPUTE.value)
        print_series(series)
        write_series(series, out)
    else:
        report = fit_runs(runs, *law, _WHERE.value, _COMPUTE.value)
        print_report(report)
        write_report(report, out)


if __name__ == "__main__":
    cli.run(main)
