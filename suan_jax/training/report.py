"""A finished run as people read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from suan_jax.table import print_table


def print_summary(summary: dict[str, Any], workdir: Path) -> None:
    """Prints a run's metrics, its AUC by loops, and the best possible ones where the log knows them."""
    columns = ("", "AUC", "± SE", "gAUC", "log loss", "NE", "calibration")
    names = ("auc", "auc_se", "gauc", "log_loss", "ne", "calibration")
    rows = [(summary["model"], *(summary.get(name) for name in names))]
    by_loops = enumerate(summary.get("auc_by_loops", ()))
    rows += [(f"at {loops} loops", auc, None, None, None, None, None) for loops, auc in by_loops]
    if "teacher" in summary:
        teacher = summary["teacher"]
        rows.append((f"its teacher, {teacher['model']}", *(teacher.get(name) for name in names)))
    rates = {"bayes": "best possible", "bayes_at_length": f"best at length {summary['max_len']}"}
    for name, label in rates.items():
        suffix = name.removeprefix("bayes")
        if f"bayes_auc{suffix}" in summary:
            auc, loss = summary[f"bayes_auc{suffix}"], summary[f"bayes_log_loss{suffix}"]
            # NE divides by the entropy of the click rate, which is the same for every row.
            ne = None if summary["ne"] is None else loss * summary["ne"] / summary["log_loss"]
            rows.append((label, auc, None, None, loss, ne, None))
    print_table(f"{workdir}: {summary['evaluated_examples']:,} {summary['split']} examples", columns, rows)
    params, speed = summary["params"], summary["examples_per_second"]
    print(
        f"parameters: body {params['body']:,}, head {params['head']:,}, embedding {params['embedding']:,}; "
        f"{summary['flops_per_example'] / 1e6:.3g} MFLOPs an example; "
        f"{summary['steps']:,} steps, {'-' if speed is None else f'{speed:,.0f}'} examples/s "
        f"on {summary['device_count']} x {summary['device']}"
    )
