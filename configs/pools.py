"""What SUAN's dual alignment pools over, absolute positions, and packing across time: AUC of each.

Claim (to be checked): pooling over the history alone, or over each event's past, which let candidates share
one pass, and leaving out absolute positions, which lets them be of different times, cost little AUC.

    python launch/compare.py --config=configs/pools.py --workdir=runs/pools

On the synthetic log at L = 100, at the learning rate that configs/compare.py found for SUAN. The last row
trains on up to 8 impressions of a user in a row, which only "causal" without absolute positions can;
evaluation never packs. Differences are measured against the default, "history" with absolute positions.

Cost: 21 runs, each as long as one of SUAN.
"""

from suan_jax.config import DataConfig, TrainConfig
from suan_jax.models.suan import Suan
from suan_jax.studies import CompareConfig


def get_config(store: str = "", max_len: int = 100) -> CompareConfig:
    """On the synthetic log, or on a store."""
    entries = {
        f"{pool}, {'with' if position else 'without'} positions": {
            "model.pool": pool,
            "model.absolute_position": position,
        }
        for pool in ("history", "all", "causal")
        for position in (True, False)
    }
    packed = {**entries["causal, without positions"], "data.packing": "time", "data.candidates": 8}
    return CompareConfig(
        model=Suan(),
        data=DataConfig(store=store, max_len=max_len),
        train=TrainConfig(batch_size=256),
        entries={**entries, "causal, without positions, packed across time": packed},
        learning_rates=(2e-3,),
        reference="history, with positions",
    )
