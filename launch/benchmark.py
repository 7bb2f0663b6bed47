"""Measures how fast this machine trains, updates embedding tables, feeds batches and scores requests.

    python launch/benchmark.py [--suite=step,seeds,devices,loops,attention,lengths,tables,input,serving,torch,
        fuxictr] [--figure=FILE] --out=FILE.json

Suites: step, the whole training step of SUAN and DIN, and its parts; seeds, steps of several seeds together;
devices, steps on several devices; loops, that of LoopCTR by its loops; attention, the kernels of
self-attention beside XLA, cuDNN and PyTorch; lengths, its time against the length of the history, with a
figure; tables, the embedding update at growing tables; input, the input pipeline on one core; serving, a
request of many candidates; torch and fuxictr, training steps beside PyTorch's and FuxiCTR's, where those are
installed. Prints a table for each, and writes all rows to FILE.json, one by one; the figure lies beside it
unless --figure says where.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from suan_jax import cli
from suan_jax.benchmark.run import SUITES, run

_SUITE = flags.DEFINE_list("suite", ",".join(SUITES), "suites to run, separated by commas")
_FIGURE = flags.DEFINE_string("figure", None, "where to draw the suite lengths, as PNG and SVG")
_OUT = flags.DEFINE_string("out", None, "JSON file to write", required=True)


def main(argv: Sequence[str]) -> None:
    """Measures and prints."""
    del argv
    run(_SUITE.value, Path(_OUT.value), _FIGURE.value and Path(_FIGURE.value))


if __name__ == "__main__":
    cli.run(main)
