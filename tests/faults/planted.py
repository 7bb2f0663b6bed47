"""Faults inside a job, for what no signal does: the jobs' config and spec files plant them.

The variable FAULT says what goes wrong, and when: "nan:30" puts NaN into the 30th batch that is assembled,
"memory:30" leaves the thread that assembles it without memory, "disk:3" fails the 3rd read of a shard, and
"clock:2.5" turns the time of day an hour back after 2.5 seconds.
"""

import errno
import itertools
import os
import time

import numpy as np

from suan_jax.data import pipeline, store

_count = itertools.count(1)  # its next value is taken at once, however many threads ask


def plant() -> None:
    """Plants the fault that the environment names, if it does."""
    kind, _, moment = os.environ.pop("FAULT", "").partition(":")
    if kind in ("nan", "memory"):
        pipeline.assemble = _spoilt(pipeline.assemble, kind, int(moment))
    elif kind == "disk":
        store.ArrayRecordReader = _reader(store.ArrayRecordReader, int(moment))
    elif kind == "clock":
        _turn_back(float(moment))


def _spoilt(assemble, kind, moment):
    def spoilt(*arguments):
        item = assemble(*arguments)
        if next(_count) != moment:
            return item
        if kind == "memory":
            raise MemoryError("no room for a batch")
        return item._replace(batch=item.batch.replace(dense=np.full_like(item.batch.dense, np.nan)))

    return spoilt


def _reader(kind, moment):
    class Reader(kind):
        def read(self, records):
            if next(_count) == moment:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return super().read(records)

    return Reader


def _turn_back(seconds):
    start, true = time.perf_counter(), time.time
    time.time = lambda: true() - 3600 * (time.perf_counter() - start > seconds)
    time.time_ns = lambda: int(time.time() * 1e9)
