r"""Whether the best learning rate moves with width: SUAN at several widths, each at several rates.

Claim (to be checked): the best peak rate of dense parameters falls with the width D as D^-power.

    python launch/sweep.py --config=configs/rates.py --workdir=runs/rates
    python launch/rates.py --runs=runs/rates --out=runs/rates --x=model_width

Scored on the validation split. Rates are a factor of two apart. Depth, batch, the tables' rate and the
examples are the same everywhere. The second command finds each width's optimum, by a parabola through the
best rate and its neighbours, and the power; rate_power of configs/grades.py, configs/joint.py and
configs/ablations.py takes it.

    python launch/sweep.py --config=configs/rates.py:widths=2,rates=3,users=1000,seeds=1,max_len=20 \
        --workdir=runs/small

Cost: the last one takes minutes on two CPU cores. By default 5 widths, 6 rates and 2 seeds, 60 runs; those of
one width differ in rate and seed alone.
"""

from suan_jax.config import DataConfig, SyntheticConfig, TrainConfig
from suan_jax.models.suan import Suan
from suan_jax.studies import SweepConfig, grid


def get_config(
    model: str = "suan",
    widths: int = 5,
    rates: int = 6,
    users: int = 40_000,
    seeds: int = 2,
    max_len: int = 100,
    store: str = "",
) -> SweepConfig:
    """Widths 32, 64, 128 and so on; rates 8e-3, 4e-3, 2e-3 and so on downwards."""
    return SweepConfig(
        model=Suan(layers=2, heads=4),
        data=DataConfig(store=store, synthetic=SyntheticConfig(users=users), max_len=max_len),
        train=TrainConfig(batch_size=256, final_split="validation"),
        cells=grid(
            {
                "model.name": [model],
                "model.width": [32 * 2**step for step in range(widths)],
                "optimizer.learning_rate": [8e-3 / 2**step for step in range(rates)],
                "train.seed": range(seeds),
            }
        ),
        rule="learning rate as swept; batch, tables' rate and examples the same",
    )
