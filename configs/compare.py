"""SUAN and the eight models it is measured against, on one harness.

Claim (to be checked, not assumed): on a log whose clicks follow from long histories, SUAN ranks above HSTU,
the search-based models and DIN at the same head, embedding width, data and budget.

    python launch/compare.py --config=configs/compare.py --workdir=runs/compare
    python launch/compare.py --config=configs/compare.py:store=stores/kuairand_pure --workdir=runs/kuairand

Without a store it runs on the synthetic log at L = 200. The shared optimizer settings are those of
configs/kuairand.py and configs/suan.py, found for SUAN and DIN; the peak learning rate alone is tuned for
each model.

Cost: 81 runs; on one H200 each takes from seconds to a few minutes.
"""

from suan_jax.config import DataConfig, TrainConfig
from suan_jax.models.din import Din
from suan_jax.studies import CompareConfig
from suan_jax.studies.kuairand import EMBEDDING_WIDTH, on_kuairand

ENTRIES = {
    "DIN": {"model.name": "din"},
    "CAN": {"model.name": "can"},
    "SoftSIM": {"model.name": "soft_sim"},
    "HardSIM": {"model.name": "hard_sim"},
    "ETA": {"model.name": "eta"},
    "TWIN": {"model.name": "twin"},
    "BST": {"model.name": "bst"},
    "HSTU": {"model.name": "hstu"},
    "SUAN": {"model.name": "suan"},
}


def get_config(store: str = "", max_len: int = 0) -> CompareConfig:
    """On the synthetic log, or on a store; `max_len` is 200 there, and 50 on a store, unless given."""
    if store:
        return CompareConfig(
            model=Din(embedding_width=EMBEDDING_WIDTH),
            **on_kuairand(store, max_len),
            entries=ENTRIES,
        )
    return CompareConfig(
        model=Din(),
        data=DataConfig(max_len=max_len or 200),
        train=TrainConfig(batch_size=256),
        entries=ENTRIES,
    )
