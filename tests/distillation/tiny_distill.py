"""A distillation of seconds: the tiny run of tests/training as the student."""

from pathlib import Path

from suan_jax import config_file
from suan_jax.distillation import DistillationConfig, DistillConfig
from suan_jax.models.din import Din

CONFIG = Path(__file__)
TINY = CONFIG.parents[1] / "training" / "tiny_config.py"


def get_config(model: str = "din", store: str = "") -> DistillConfig:
    run = config_file.load(f"{TINY}:model={model},store={store}")
    teacher = Din(head=(6,), embedding_width=5)
    return DistillConfig(**vars(run), distillation=DistillationConfig(teacher=teacher, max_len=11))


def tiny(*overrides: str, arguments: str = "") -> DistillConfig:
    """The config, with overrides such as "train.steps=5" and arguments such as "model=suan"."""
    given = [f"--config={CONFIG}:{arguments}", *map("--config.{}".format, overrides)]
    return config_file.load_config(given, DistillConfig)


def arguments(workdir: Path, *overrides: str, teacher: Path | str = "") -> list[str]:
    """The command line of the job."""
    flags = [f"--config={CONFIG}", f"--workdir={workdir}", *map("--config.{}".format, overrides)]
    return [*flags, f"--teacher={teacher}"] if teacher else [*flags, "--config.distillation.online=True"]
