"""Prints where the state of a run would live on a machine that need not be there.

    python launch/plan.py --config=FILE[:key=value,...] --devices=N [--rows=TABLE=COUNT,...] [--least=BYTES]

For each array: its shape, the mesh axes that split it, and the bytes of its piece on one device. --rows puts
numbers of ids in the place of the log's, as for a log that is not prepared yet.
"""

from collections.abc import Sequence

from absl import flags

from suan_jax import cli, config_file
from suan_jax.errors import UserError
from suan_jax.training.plan import plan, planned_setup, print_plan

_CONFIG = config_file.define_config()
_DEVICES = flags.DEFINE_integer(
    "devices", None, "number of devices", required=True, lower_bound=1, upper_bound=2**31 - 1
)
_ROWS = flags.DEFINE_list("rows", [], "ids of tables, TABLE=COUNT, separated by commas")
_LEAST = flags.DEFINE_integer("least", 1 << 20, "bytes per device from which an array has its own line")


def _rows() -> dict[str, int]:
    rows = {}
    for text in _ROWS.value:
        name, _, count = text.partition("=")
        if not count.isdecimal():
            raise UserError(f"--rows={text} is not of the form TABLE=COUNT")
        rows[name] = int(count)
    return rows


def main(argv: Sequence[str]) -> None:
    """Plans and prints."""
    del argv
    setup = planned_setup(_CONFIG.value, _DEVICES.value, _rows())
    print_plan(plan(setup), _LEAST.value)


if __name__ == "__main__":
    cli.run(main)
