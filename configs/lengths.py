"""SUAN(L): what a longer history is worth to SUAN, HSTU, TWIN and DIN.

Claim (to be checked): SUAN gains more from a longer history than the others do.

    python launch/compare.py --config=configs/lengths.py --workdir=runs/lengths

On the synthetic log, at L = 50, 200 and 1000, at one learning rate for all models and lengths: the one that
configs/compare.py found for SUAN and DIN at L = 200. TWIN's and HSTU's own best rates differ from it.

Cost: 36 runs; those of SUAN and HSTU at L = 1000 take minutes each on one H200.
"""

from suan_jax.config import DataConfig, TrainConfig
from suan_jax.models.din import Din
from suan_jax.studies import CompareConfig

MODELS = {"DIN": "din", "TWIN": "twin", "HSTU": "hstu", "SUAN": "suan"}
LENGTHS = (50, 200, 1000)


def get_config(store: str = "") -> CompareConfig:
    """On the synthetic log, or on a store."""
    return CompareConfig(
        model=Din(),
        data=DataConfig(store=store),
        train=TrainConfig(batch_size=256),
        entries={
            f"{label} L {length}": {"model.name": name, "data.max_len": length}
            for length in LENGTHS
            for label, name in MODELS.items()
        },
        learning_rates=(2e-3,),
        reference="DIN L 50",
    )
