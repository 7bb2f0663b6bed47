r"""AUC against model size: SUAN, HSTU, BST, LightSUAN and LoopCTR up one ladder, on the same examples.

Claim (to be checked): every model's AUC follows E - A/N^alpha in its body parameters N, and SUAN's exponent
is the largest.

    python launch/sweep.py --config=configs/grades.py:rungs=9 --workdir=runs/grades
    python launch/fit.py --runs=runs/grades --out=runs/grades_laws --x=params_body --y=auc --form=power \
        --by=model
    python launch/fit.py --runs=runs/grades --out=runs/suan_law --x=params_body --y=auc --form=power \
        --where="model = 'suan'"
    python launch/sweep.py --config=configs/grades.py:rungs=10 --workdir=runs/grades \
        --predict=runs/suan_law/fit.json

Rungs and the rule for the learning rate are those of suan_jax/studies/ladder.py: 10 thousand body parameters
at rung 0 and about three times as many at each next one, 33 million at rung 8; `lowest` is the first rung, -2
at the least, and `rungs` the one after the last. `hidden` says whether the rate of hidden matrices alone
falls with the width, or that of all dense parameters. The head, the embeddings, the batch and the examples,
one pass over the log, are the same at every rung. The last command trains the rung above the fitted ones and
sets what the law said of it beside what came out. `models` is a list such as suan+hstu.

    python launch/sweep.py --config=configs/grades.py:models=suan,rungs=4,users=1000,seeds=1,max_len=20 \
        --workdir=runs/small

Cost: the last one takes minutes on two CPU cores. At the default of 5 rungs, 75 runs, of which the largest
dominate: FLOPs of a run grow with the body.
"""

from suan_jax.config import DataConfig, OptimizerConfig, SyntheticConfig, TrainConfig
from suan_jax.models.suan import Suan
from suan_jax.studies import SweepConfig
from suan_jax.studies.ladder import MODELS, POWER, RATE, WARMUP, rule, rung


def get_config(
    models: str = "+".join(MODELS),
    rungs: int = 5,
    lowest: int = 0,
    users: int = 100_000,
    seeds: int = 3,
    max_len: int = 100,
    rate: float = RATE,
    rate_power: float = POWER,
    hidden: bool = True,
    warmup: float = WARMUP,
    store: str = "",
) -> SweepConfig:
    """The rungs of each model from `lowest` to below `rungs`."""
    return SweepConfig(
        model=Suan(),
        data=DataConfig(store=store, synthetic=SyntheticConfig(users=users), max_len=max_len),
        optimizer=OptimizerConfig(warmup=warmup),
        train=TrainConfig(batch_size=256),
        cells=tuple(
            {**rung(model, index, rate, rate_power, hidden), "train.seed": seed}
            for index in range(lowest, rungs)
            for model in models.split("+")
            for seed in range(seeds)
        ),
        rule=rule(rate, rate_power, hidden),
    )
