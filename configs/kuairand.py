"""SUAN and DIN on KuaiRand-Pure (Gao et al., CIKM 2022), prepared by launch/prepare.py.

    python launch/prepare.py --source=kuairand_pure --raw=KuaiRand-Pure/data --out=stores/kuairand_pure
    python launch/train.py --config=configs/kuairand.py:model=suan --workdir=runs/kuairand_suan
    python launch/train.py --config=configs/kuairand.py:model=din --workdir=runs/kuairand_din

Settings: chosen on the validation split (the last 10 % of the train period) among rates of dense parameters
and tables, Adagrad's first accumulator, batch sizes, schedules, widths and head sizes; then trained on the
whole train period, for one epoch, for every model was worse after a second. Histories are short here: no
claims about long ones.

Cost: seconds on one H200, a few minutes on two CPU cores.
"""

from suan_jax.config import Config, DataConfig, OptimizerConfig, TrainConfig
from suan_jax.errors import UserError
from suan_jax.models.din import Din
from suan_jax.models.suan import Suan


def get_config(model: str = "suan", store: str = "stores/kuairand_pure", seed: int = 0) -> Config:
    """The run that the README reports."""
    if model == "suan":
        definition, rate, schedule = Suan(embedding_width=16), 1e-3, "linear"
    elif model == "din":
        definition, rate, schedule = Din(embedding_width=16), 2e-3, "constant"
    else:
        raise UserError(f"configs/kuairand.py has settings for suan and din, not for {model!r}")
    return Config(
        model=definition,
        data=DataConfig(store=store, max_len=50, train_on="train+validation"),
        optimizer=OptimizerConfig(
            learning_rate=rate,
            schedule=schedule,
            embedding_learning_rate=0.05,
            embedding_init=0.01,
        ),
        train=TrainConfig(batch_size=512, epochs=1, seed=seed),
    )
