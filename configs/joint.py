r"""AUC and log loss against model size and data together: every rung of a model's ladder on nested shares.

Claim (to be checked): log loss follows E + A/N^alpha + B/D^beta in body parameters N and train examples D, so
that a budget of FLOPs has a best division between them.

    python launch/sweep.py --config=configs/joint.py --workdir=runs/joint
    python launch/fit.py --runs=runs/joint --out=runs/joint_law --x=params_body,examples --y=log_loss \
        --form=chinchilla

Rungs 0, 2, 4 and so on of suan_jax/studies/ladder.py, with its rule for the learning rate; shares of the
users, so that a smaller one lies inside a larger one, in steps of half a decade down from the whole log; one
pass, the test set whole. The fit draws the frontier of compute beside the law.

    python launch/sweep.py --config=configs/joint.py:rungs=2,steps=3,users=2000,seeds=1,max_len=20 \
        --workdir=runs/small

Cost: the last one takes minutes on two CPU cores. By default 5 sizes on 6 shares and 2 seeds, 60 runs, as
much as 15 on the whole log.
"""

from suan_jax.config import DataConfig, OptimizerConfig, SyntheticConfig, TrainConfig
from suan_jax.models.suan import Suan
from suan_jax.studies import SweepConfig
from suan_jax.studies.ladder import POWER, RATE, WARMUP, rule, rung


def get_config(
    model: str = "suan",
    rungs: int = 5,
    steps: int = 6,
    users: int = 200_000,
    seeds: int = 2,
    max_len: int = 100,
    rate: float = RATE,
    rate_power: float = POWER,
    store: str = "",
) -> SweepConfig:
    """The lowest even rungs of a model, each on `steps` shares."""
    return SweepConfig(
        model=Suan(),
        data=DataConfig(store=store, synthetic=SyntheticConfig(users=users), max_len=max_len),
        optimizer=OptimizerConfig(warmup=WARMUP),
        train=TrainConfig(batch_size=256),
        cells=tuple(
            {
                **rung(model, 2 * index, rate, rate_power),
                "data.train_fraction": float(f"{10 ** (-step / 2):.3g}"),
                "train.seed": seed,
            }
            for step in reversed(range(steps))
            for index in range(rungs)
            for seed in range(seeds)
        ),
        rule=rule(rate, rate_power),
    )
