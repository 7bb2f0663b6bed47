"""Any model on the embedded synthetic click log, in minutes on two CPU cores.

Claim: a small SUAN comes close to the best possible AUC of the log, which is known, and stays below it.

    python launch/train.py --config=configs/quickstart.py
    python launch/train.py --config=configs/quickstart.py --config.model.name=din --workdir=runs/din

Cost: about 4 minutes and 2 GiB on two CPU cores, compilation included.
"""

from suan_jax.config import Config, DataConfig, SyntheticConfig, TrainConfig
from suan_jax.models.suan import Suan


def get_config() -> Config:
    """The quickstart."""
    return Config(
        model=Suan(head=(256, 128, 64)),
        data=DataConfig(synthetic=SyntheticConfig(), max_len=50),
        train=TrainConfig(batch_size=1024, epochs=1),
    )
