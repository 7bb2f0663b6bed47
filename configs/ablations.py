r"""What SUAN's scaling rests on: its law without RMSNorm, and without the attention's biases.

Claim (the paper's, to be checked): without either, SUAN does not scale.

    python launch/sweep.py --config=configs/ablations.py --workdir=runs/ablations
    python launch/fit.py --runs=runs/ablations --out=runs/ablations_laws --x=params_body --y=auc \
        --form=power --by=model_rms_norm,model_time_bias,model_position_bias

Four variants: SUAN; without RMSNorm; without the time bias; without either bias. Rungs and the rule for the
learning rate are those of suan_jax/studies/ladder.py; a variant that diverges is a failed cell, and is
reported.

    python launch/sweep.py --config=configs/ablations.py:rungs=2,users=1000,seeds=1,max_len=20 \
        --workdir=runs/small

Cost: the last one takes minutes on two CPU cores. By default 6 rungs and 3 seeds, 72 runs.
"""

from suan_jax.config import DataConfig, OptimizerConfig, SyntheticConfig, TrainConfig
from suan_jax.models.suan import Suan
from suan_jax.studies import SweepConfig
from suan_jax.studies.ladder import POWER, RATE, WARMUP, rule, rung

VARIANTS = (  # rms_norm, time_bias, position_bias
    (True, True, True),
    (False, True, True),
    (True, False, True),
    (True, False, False),
)


def get_config(
    rungs: int = 6,
    lowest: int = 0,
    users: int = 100_000,
    seeds: int = 3,
    max_len: int = 100,
    rate: float = RATE,
    rate_power: float = POWER,
    store: str = "",
) -> SweepConfig:
    """Every variant at the rungs from `lowest` to below `rungs`."""
    return SweepConfig(
        model=Suan(),
        data=DataConfig(store=store, synthetic=SyntheticConfig(users=users), max_len=max_len),
        optimizer=OptimizerConfig(warmup=WARMUP),
        train=TrainConfig(batch_size=256),
        cells=tuple(
            {
                **rung("suan", index, rate, rate_power),
                "model.rms_norm": norm,
                "model.time_bias": time,
                "model.position_bias": position,
                "train.seed": seed,
            }
            for index in range(lowest, rungs)
            for norm, time, position in VARIANTS
            for seed in range(seeds)
        ),
        rule=rule(rate, rate_power),
    )
