"""Which log a run reads."""

from __future__ import annotations

from suan_jax.config import DataConfig
from suan_jax.data.block import Log
from suan_jax.data.store import open_store
from suan_jax.data.synthetic import SyntheticLog


def open_log(data: DataConfig) -> Log:
    """The store that `data` names, or the synthetic log if it names none.

    Raises:
      UserError: if there is no sound store there.
    """
    return open_store(data.store) if data.store else SyntheticLog(data.synthetic)


def with_truth(log: Log, data: DataConfig) -> Log:
    """The log that `open_log` gave, for evaluation: a synthetic one also tells its logit at `max_len`.

    Training does without, for it makes the generation of a block a fifth slower.
    """
    return SyntheticLog(data.synthetic, data.max_len) if isinstance(log, SyntheticLog) else log
