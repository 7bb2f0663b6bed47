"""Turns raw files into a store, and prints its counts, splits and vocabularies.

    python launch/prepare.py --source=NAME --raw=DIR --out=STORE [--spec=FILE] [--min_count=N]
        [--runner=NAME [-- --OPTION=VALUE ...]]

Sources: kuairand_pure, taobao_ad, eleme, amazon_electronics_x1, taobao_ad_x1 and kuaivideo_x1, folders of the
official files; logs, your own tables, which --spec describes (a Python file whose get_spec() returns a
suan_jax.data.sources.log_spec.LogSpec); synthetic, the embedded log (no --raw).

With --runner the log is prepared by an Apache Beam pipeline, to the same bytes; what stands behind a bare --
goes to Beam, such as --flink_master=HOST:8081. All workers must reach --raw and --out under these paths.
"""

from collections.abc import Sequence

from absl import flags

from suan_jax import cli
from suan_jax.data.prepare_store import SYNTHETIC, prepare_store
from suan_jax.data.sources import SOURCES

_SOURCE = flags.DEFINE_enum("source", None, [*SOURCES, SYNTHETIC], "where the log comes from", required=True)
_RAW = flags.DEFINE_string("raw", "", "folder of the raw files; none for --source=synthetic")
_OUT = flags.DEFINE_string("out", None, "directory of the new store, which must not exist", required=True)
_SPEC = flags.DEFINE_string("spec", "", "spec file, for --source=logs alone")
_MIN_COUNT = flags.DEFINE_integer("min_count", 2, "occurrences below which a value is out of vocabulary")
_RUNNER = flags.DEFINE_string(
    "runner", "", "Beam's DirectRunner, FlinkRunner, SparkRunner, ...; none: no Beam"
)


def main(argv: Sequence[str]) -> None:
    """Prepares and prints."""
    prepare_store(
        _SOURCE.value,
        _RAW.value,
        _OUT.value,
        _SPEC.value,
        _MIN_COUNT.value,
        runner=_RUNNER.value,
        beam_options=argv[1:],
    )


if __name__ == "__main__":
    cli.run(main, passes_on=True)
