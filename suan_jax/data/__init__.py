"""Click logs: stored, generated, and turned into batches."""

from suan_jax.data.assembly import EvaluationBatch
from suan_jax.data.block import Block, Log
from suan_jax.data.pipeline import evaluation_batches, train_iterator
from suan_jax.data.selection import Selection, num_examples, train_selection
from suan_jax.data.store import Store, open_store
from suan_jax.data.store_writer import StoreWriter
from suan_jax.schema import SPLITS

__all__ = [
    "SPLITS",
    "Block",
    "EvaluationBatch",
    "Log",
    "Selection",
    "Store",
    "StoreWriter",
    "evaluation_batches",
    "num_examples",
    "open_store",
    "train_iterator",
    "train_selection",
]
