"""The figure of a study of depths: the oracle beside its controls, and AUC against depth and FLOPs."""

from __future__ import annotations

from pathlib import Path

from suan_jax.figures import figure, legend_below, look
from suan_jax.studies.depths import DepthStudy

_RULES = {"change": "stop on small change", "gate": "learned gate"}


def draw(study: DepthStudy, workdir: Path) -> None:
    """Writes depths.png and depths.svg."""
    with figure(workdir / "depths", width=10.0, height=4.0) as drawn:
        oracle, depth, flops = drawn.subplots(1, 3, width_ratios=(0.8, 1, 1))
        _draw_oracle(oracle, study)
        _draw_rules(depth, study, "mean_depth", "mean_depth", 1.0)
        depth.set_xlabel("mean loops per example")
        _draw_rules(flops, study, "flops", "random_flops", 1e-6)
        flops.set_xlabel("forward MFLOPs per example")
        legend_below(drawn, *flops.get_legend_handles_labels())


def _draw_oracle(axes, study: DepthStudy) -> None:
    found = study.headroom
    names = ("mean of\ndepths", "oracle", "Gaussian\ncontrol", "shuffled\ncontrol")
    for index, auc in enumerate((found.mean, found.oracle, found.gaussian, found.shuffled)):
        axes.plot(index, auc, linestyle="", **look(index))
        axes.annotate(f"{auc:.4f}", (index, auc), (0, 6), textcoords="offset points", ha="center", fontsize=8)
    axes.set_xticks(range(len(names)), names, fontsize=8)
    axes.margins(x=0.15, y=0.15)
    axes.set_ylabel("AUC")
    axes.set_title("choosing by the label", fontsize=9)


def _draw_rules(axes, study: DepthStudy, x: str, random_x: str, unit: float) -> None:
    """Fixed depths with DeLong's error, each rule's curve, and in grey its depths dealt out at random."""
    fixed = study.fixed
    axes.errorbar(
        [row["flops" if x == "flops" else "depth"] * unit for row in fixed],
        [row["auc"] for row in fixed],
        yerr=[row["auc_se"] for row in fixed],
        capsize=3,
        linestyle="",
        label="fixed depth ± SE",
        **look(6),
    )
    for index, (rule, label) in enumerate(_RULES.items()):
        rows = study.rules[rule]
        style = {**look(index), "markersize": 3}
        axes.plot([row[x] * unit for row in rows], [row["auc"] for row in rows], label=label, **style)
        axes.plot(
            [row[random_x] * unit for row in rows],
            [row["random_auc"] for row in rows],
            linestyle=":",
            color=style["color"],
            label=f"{label}, dealt out at random",
        )
    axes.set_ylabel("AUC")
