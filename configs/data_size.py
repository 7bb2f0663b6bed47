r"""AUC against the amount of training data, for SUAN, HSTU, BST and DIN: nested shares of the log.

Claim (to be checked): every model's AUC rises with data, and that of SUAN rises fastest.

    python launch/sweep.py --config=configs/data_size.py --workdir=runs/data_size
    python launch/fit.py --runs=runs/data_size --out=runs/data_laws --x=examples --y=auc --form=power \
        --by=model

Shares of the users in steps of half a decade, from a thousandth to all of them: 3 thousand to 3 million train
examples of the synthetic log, one pass over each, the test set whole. `models` is a list such as din+suan.

    python launch/sweep.py --config=configs/data_size.py:models=din,decades=1,users=3000,seeds=1,max_len=20 \
        --workdir=runs/small

Cost: the last one takes minutes on two CPU cores. By default 84 runs, as much as 18 on the whole log; in
proportion to users.
"""

from suan_jax.config import DataConfig, SyntheticConfig, TrainConfig
from suan_jax.models.suan import Suan
from suan_jax.studies import SweepConfig, grid


def get_config(
    models: str = "din+bst+hstu+suan",
    decades: int = 3,
    users: int = 200_000,
    seeds: int = 3,
    max_len: int = 100,
    store: str = "",
) -> SweepConfig:
    """Shares of the users; the test set stays whole."""
    shares = [float(f"{10 ** (-step / 2):.3g}") for step in reversed(range(2 * decades + 1))]
    return SweepConfig(
        model=Suan(),
        data=DataConfig(store=store, synthetic=SyntheticConfig(users=users), max_len=max_len),
        train=TrainConfig(batch_size=256),
        cells=grid(
            {
                "model.name": models.split("+"),
                "data.train_fraction": shares,
                "train.seed": range(seeds),
            }
        ),
    )
