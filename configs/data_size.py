"""AUC against the amount of training data, for SUAN, HSTU, BST and DIN: nested shares of the synthetic log.

    python launch/sweep.py --config=configs/data_size.py --workdir=runs/data_size
    python launch/sweep.py --config=configs/data_size.py:users=400000 --workdir=runs/large --part=0 --parts=8

Claim (to be checked): every model's AUC rises with data, and that of SUAN rises fastest.

Cost: 48 runs, on average half as long as one of configs/suan.py, in proportion to users.
"""

from suan_jax.config import DataConfig, SyntheticConfig, TrainConfig
from suan_jax.models.suan import Suan
from suan_jax.studies import SweepConfig, grid


def get_config(users: int = 20_000, seeds: int = 3, max_len: int = 100) -> SweepConfig:
    """Shares of the users; the test set stays whole."""
    return SweepConfig(
        model=Suan(),
        data=DataConfig(synthetic=SyntheticConfig(users=users), max_len=max_len),
        train=TrainConfig(batch_size=256),
        cells=grid(
            {
                "model.name": ("din", "bst", "hstu", "suan"),
                "data.train_fraction": (0.1, 0.3, 0.6, 1.0),
                "train.seed": range(seeds),
            }
        ),
    )
