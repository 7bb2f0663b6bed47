"""What a run is: every setting, its default, and what it means.

One-letter sizes used across the package, in names such as `logits_BxM`:
  B rows of a batch, L history slots, M candidates, T = L + M tokens, F features of a token,
  d width of one feature's embedding, D model width, H heads, Dh = D / H, P profile features.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar


@dataclasses.dataclass
class SyntheticConfig:
    """The embedded click log (`suan_jax.data.synthetic`).

    Attributes:
      users: number of users.
      events: behaviours of a user, on average, over the whole log; clicks come on top. Users differ by
        activity and by the day they join, so histories are of any length from 0 to about six times this.
      impressions: impressions of a user, on average, over train, validation and test.
      items: items in the catalogue, at least 1024.
      seed: seed of the log; another seed is another world.
    """

    users: int = 20_000
    events: int = 300
    impressions: int = 20
    items: int = 20_000
    seed: int = 0


@dataclasses.dataclass
class DataConfig:
    """Which examples a run sees.

    Attributes:
      store: directory that `launch/prepare.py` wrote; empty means the synthetic log.
      synthetic: the synthetic log, read when `store` is empty.
      max_len: longest history a model sees, L; older events are cut off.
      train_on: splits to train on: "train" or "train+validation".
      train_fraction: share of the train examples, in (0, 1]; a smaller share lies inside a larger one.
      fraction_by: "user" keeps a share of the users, "time" the latest share of the examples.
      negative_rate: share of the train examples without a click that is kept; probabilities are put
        right for it in metrics and predictions.
      packing: which train impressions of a user share one history: "none", each has its own; "request",
        those of one moment, which score as they do alone; "time", consecutive ones, each seeing the row's
        events up to its own time, for models that can. Evaluation never packs.
      candidates: most candidates of a row, M; 1 without packing.
      least_history: read with packing "time": a row ends where its first candidate would see less than this
        share, in [0, 1], of the events that it sees alone.
      window: blocks that are shuffled together; larger mixes better and holds more memory.
      threads: threads that assemble batches ahead of the step, and as many that read their blocks.
    """

    store: str = ""
    synthetic: SyntheticConfig = dataclasses.field(default_factory=SyntheticConfig)
    max_len: int = 100
    train_on: str = "train"
    train_fraction: float = 1.0
    fraction_by: str = "user"
    negative_rate: float = 1.0
    packing: str = "none"
    candidates: int = 1
    least_history: float = 0.5
    window: int = 64
    threads: int = 1


@dataclasses.dataclass
class ModelConfig:
    """Settings that every model has; each model adds its own in a subclass.

    Attributes:
      name: the name it is registered under.
      grade: row of the model's size table; sizes that are None come from it.
      embedding_width: width d of one feature's embedding.
      head: widths of the shared head's hidden layers.
      batch_norm_momentum: share of the old running statistics kept at each step.
      dtype: dtype of activations, "float32" or "bfloat16"; dense parameters stay float32.
    """

    name: str = ""
    grade: int = 0
    embedding_width: int = 8
    head: tuple[int, ...] = (1024, 512, 256)
    batch_norm_momentum: float = 0.95
    dtype: str = "float32"


@dataclasses.dataclass
class OptimizerConfig:
    """AdamW for dense parameters, row-wise Adagrad for embedding tables.

    Dense gradients are of the batch's mean loss, row gradients of its sum. The defaults were found for SUAN
    and DIN on the synthetic log.

    Attributes:
      learning_rate: peak learning rate of dense parameters.
      warmup: share of the steps, in [0, 1), over which it rises linearly to the peak; the first one already
        moves.
      schedule: "constant", or "cosine" or "linear" to 0 at the end of the run.
      weight_decay: decoupled decay of dense matrices; vectors and scalars take none.
      clip: global norm to which dense gradients are clipped; 0 switches it off.
      multipliers: pairs (regular expression, factor) on learning rates; the first that matches a
        parameter's path, such as "blocks/attention/query", applies.
      hidden_rate: factor on the learning rate of hidden matrices, of which both sides grow with the model's
        width (arXiv 2203.03466).
      embedding_learning_rate: learning rate of the tables, on the same schedule.
      embedding_initial_accumulator: Adagrad's accumulator of an untouched row.
      embedding_init: standard deviation of a table's initial rows.
      embedding_dtype: dtype of the tables, "float32" or "bfloat16", which takes half the memory; what is
        written to the latter is rounded up or down at random, so that small updates add up, and a run on
        other devices may differ; accumulators stay float32.
    """

    learning_rate: float = 2e-3
    warmup: float = 0.0
    schedule: str = "cosine"
    weight_decay: float = 0.0
    clip: float = 10.0
    multipliers: tuple[tuple[str, float], ...] = ()
    hidden_rate: float = 1.0
    embedding_learning_rate: float = 0.2
    embedding_initial_accumulator: float = 0.1
    embedding_init: float = 0.3
    embedding_dtype: str = "float32"


@dataclasses.dataclass
class TrainConfig:
    """How long, and how often it looks up.

    Attributes:
      batch_size: examples per step, over all devices. With `data.packing`, candidate slots: rows times
        `data.candidates`; slots that stay empty are no examples, and steps, speeds and the summary count
        only the others.
      steps: steps to train; 0 means `epochs` decides.
      epochs: passes over the train examples, read when `steps` is 0.
      seed: seed of parameters, data order and dropout.
      log_every: steps between rows of metrics.jsonl.
      eval_every: steps between evaluations; 0 evaluates at the end only.
      eval_split: split evaluated during training.
      final_split: split evaluated at the end; a search for settings takes "validation".
      save_scores: whether the evaluation at the end leaves scores.npy: user, label and logit of each example.
      eval_batch_size: examples per evaluation step, over all devices.
    """

    batch_size: int = 1024
    steps: int = 0
    epochs: float = 1.0
    seed: int = 0
    log_every: int = 20
    eval_every: int = 0
    eval_split: str = "validation"
    final_split: str = "test"
    save_scores: bool = False
    eval_batch_size: int = 4096


@dataclasses.dataclass
class CheckpointConfig:
    """When state is saved.

    Attributes:
      every: steps between checkpoints; one is always written at the end.
      keep: newest checkpoints kept.
      best: metric of the evaluations ("auc", "gauc", "log_loss") whose best checkpoint is kept too and is
        the one evaluated at the end; empty keeps the last.
    """

    every: int = 500
    keep: int = 2
    best: str = ""


@dataclasses.dataclass
class MeshConfig:
    """Sizes of the device mesh; -1 takes the devices that are left.

    Attributes:
      data: devices over which a batch is split.
      model: devices over which heads and hidden layers are split; tables are split over all devices.
    """

    data: int = -1
    model: int = 1


@dataclasses.dataclass
class Config:
    """A training run.

    Attributes:
      init_from: work directory whose weights the run starts from; empty starts afresh.
      job: the launch file that reads such a config.
    """

    job: ClassVar[str] = "launch/train.py"
    model: ModelConfig
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    init_from: str = ""
