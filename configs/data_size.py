r"""AUC against the amount of training data, for SUAN, HSTU, BST and DIN: nested shares of the log.

Claim (to be checked): every model's AUC rises with data, and that of SUAN rises fastest.

    python launch/sweep.py --config=configs/data_size.py --workdir=runs/data_size
    python launch/fit.py --runs=runs/data_size --out=runs/data_laws --x=examples --y=auc --form=power \
        --by=model

    python launch/sweep.py --config=configs/data_size.py:store=stores/kuairand_pure,decades=2 \
        --workdir=runs/kuairand_data_size

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
from suan_jax.studies.kuairand import EMBEDDING_WIDTH, on_kuairand


def get_config(
    models: str = "din+bst+hstu+suan",
    decades: int = 3,
    users: int = 200_000,
    seeds: int = 3,
    max_len: int = 0,
    store: str = "",
) -> SweepConfig:
    """Shares of the users of the synthetic log at L = 100, or of a store; the test set stays whole."""
    shares = [float(f"{10 ** (-step / 2):.3g}") for step in reversed(range(2 * decades + 1))]
    if store:
        width, shared = EMBEDDING_WIDTH, on_kuairand(store, max_len)
    else:
        data = DataConfig(synthetic=SyntheticConfig(users=users), max_len=max_len or 100)
        width, shared = Suan.embedding_width, {"data": data, "train": TrainConfig(batch_size=256)}
    return SweepConfig(
        model=Suan(embedding_width=width),
        **shared,
        cells=grid(
            {
                "model.name": models.split("+"),
                "data.train_fraction": shares,
                "train.seed": range(seeds),
            }
        ),
    )
