"""What sparse attention costs in ranking: LightSUAN at dilations 1, 2, 4 and 8, beside SUAN.

Claim (to be checked): LightSUAN's AUC falls little with its dilation r, while its attention costs
O(L·(k + (L − k) / r)). At r = 1 it is SUAN.

    python launch/compare.py --config=configs/dilations.py --workdir=runs/dilations

On the synthetic log at L = 200, with the local window k of LightSUAN's default, at the learning rate that
configs/compare.py found for SUAN; differences are measured against SUAN.

Cost: 15 runs, each as long as one of SUAN.
"""

from suan_jax.config import DataConfig, TrainConfig
from suan_jax.models.suan import Suan
from suan_jax.studies import CompareConfig

DILATIONS = (1, 2, 4, 8)


def get_config(store: str = "", max_len: int = 200) -> CompareConfig:
    """On the synthetic log, or on a store."""
    return CompareConfig(
        model=Suan(),
        data=DataConfig(store=store, max_len=max_len),
        train=TrainConfig(batch_size=256),
        entries={
            "SUAN": {"model.name": "suan"},
            **{f"LightSUAN, r = {r}": {"model.name": "light_suan", "model.dilation": r} for r in DILATIONS},
        },
        learning_rates=(2e-3,),
        reference="SUAN",
    )
