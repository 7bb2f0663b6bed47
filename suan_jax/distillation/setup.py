"""Training steps of a student and its teacher.

Online, both take a step on each batch: BCE(σ(z_T), y) for the teacher, and for the student BCE(σ(z_S), y) and
`distillation_loss`; separate tables. This project's decisions: z_T are the logits that the teacher's own
gradients are taken at, so it computes them once; the teacher has the student's batches and steps, and its
optimizer but for `rate_factor`.
Offline, the teacher only scores, as evaluation does.

A batch is assembled for the longer of their lengths, and each sees its latest events, as its own examples
have them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grain
import jax

from suan_jax.batch import Batch
from suan_jax.data.pipeline import train_iterator
from suan_jax.distillation.config import DistillationConfig, DistillConfig, teacher_config
from suan_jax.distillation.lengths import latest_events
from suan_jax.distillation.loss import distillation_loss
from suan_jax.distillation.teacher import logit_shift, restore_teacher
from suan_jax.layers.loss import log_loss
from suan_jax.models.model import Output, Variables
from suan_jax.training.evaluation import Evaluation
from suan_jax.training.optimizer import Pace
from suan_jax.training.setup import Setup, Watch, set_up
from suan_jax.training.sharding import own_shards
from suan_jax.training.state import AccompaniedState, TrainState
from suan_jax.training.step import Metrics, TrainStep, compile_step, learn
from suan_jax.training.summary import count_parameters

_METRICS = ("auc", "auc_se", "gauc", "log_loss", "ne", "calibration")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _DistillSetup(Setup):
    """A student's run.

    Attributes:
      teacher: the teacher's run, on the student's log and mesh.
    """

    config: DistillConfig
    teacher: Setup

    def train_iterator(self) -> grain.DatasetIterator:
        """See `Setup`."""
        config = self.config
        longest = max(config.data.max_len, self.teacher.config.data.max_len)
        data = dataclasses.replace(config.data, max_len=longest)
        shards = own_shards(self.mesh)
        return train_iterator(self.log, data, config.train.batch_size, config.train.seed, *shards)

    def _summary(self, teacher_state: TrainState, watch: Watch, train_flops: float) -> dict[str, Any]:
        """The teacher's point and the settings, for summary.json."""
        config, teacher = self.config, self.teacher
        result = Evaluation(teacher).metrics(teacher_state, config.train.final_split, watch)
        distillation = config.distillation
        return {
            "teacher": {
                "model": teacher.config.model.name,
                "grade": teacher.config.model.grade,
                "max_len": teacher.config.data.max_len,
                "workdir": distillation.teacher_from,
                **{name: result[name] for name in _METRICS},
                "params_body": count_parameters(teacher.model, teacher_state.params)["body"],
                "train_flops": train_flops * self.total_steps * config.train.batch_size,
            },
            "distillation": {
                name: getattr(distillation, name) for name in ("online", "weight", "temperature")
            },
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnlineSetup(_DistillSetup):
    """A student whose teacher trains along; its state is an `AccompaniedState`.

    Attributes:
      student: the student's run by itself.
    """

    student: Setup

    def fresh_state(self) -> AccompaniedState:
        """See `Setup`."""
        items = {"state": self.student.fresh_state(), "companion": self.teacher.fresh_state()}
        return AccompaniedState.of_items(items)

    def compile_step(self) -> TrainStep:
        """See `Setup`."""
        step = functools.partial(online_step, self.student, self.teacher, self.config.distillation)
        return compile_step(step, self.pace(), self.mesh, self.shardings())

    def summarise_more(self, state: AccompaniedState, watch: Watch) -> dict[str, Any]:
        """See `Setup`; the teacher is evaluated too."""
        model, data = self.teacher.config.model, self.teacher.config.data
        return self._summary(
            state.companion, watch, model.training_flops_per_example(self.log.schema, data.max_len)
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfflineSetup(_DistillSetup):
    """A student whose teacher was trained before; its state is the student's alone.

    Attributes:
      teacher_state: the teacher's, from `restore_teacher`.
    """

    teacher_state: TrainState

    def compile_step(self) -> TrainStep:
        """See `Setup`."""
        variables = {**self.teacher_state.dense_variables(), "tables": self.teacher_state.tables}
        step = functools.partial(offline_step, self, self.teacher)
        return compile_step(step, self.pace(), self.mesh, self.shardings(), variables)

    def summarise_more(self, state: TrainState, watch: Watch) -> dict[str, Any]:
        """See `Setup`; the teacher is evaluated too."""
        del state
        model, data = self.teacher.config.model, self.teacher.config.data
        return self._summary(
            self.teacher_state, watch, model.flops_per_example(self.log.schema, data.max_len)
        )


def set_up_online(config: DistillConfig) -> OnlineSetup:
    """Everything that a student and a teacher who train together need.

    Raises:
      UserError: as `set_up`.
    """
    student = set_up(config)
    teacher = set_up(teacher_config(config), student.log)
    abstract = AccompaniedState.of_items({"state": student.abstract, "companion": teacher.abstract})
    fields = {**_fields(student), "abstract": abstract}
    return OnlineSetup(**fields, teacher=teacher, student=student)


def set_up_offline(config: DistillConfig, workdir: Path) -> OfflineSetup:
    """Everything that a student needs, and the teacher in `workdir`, restored.

    Raises:
      UserError: as `set_up`, or if the teacher does not fit the student's log.
    """
    student = set_up(config)
    teacher, state, digest = restore_teacher(config, workdir, student.log)
    return OfflineSetup(**{**_fields(student), "taught_by": digest}, teacher=teacher, teacher_state=state)


def _fields(setup: Setup) -> dict[str, Any]:
    return {field.name: getattr(setup, field.name) for field in dataclasses.fields(Setup)}


def online_step(
    student: Setup,
    teacher: Setup,
    distillation: DistillationConfig,
    state: AccompaniedState,
    batch: Batch,
    pace: Pace,
) -> tuple[AccompaniedState, Metrics]:
    """A step of the teacher from the labels, and one of the student from the labels and the teacher.

    Args:
      student: the student's run.
      teacher: the teacher's run.
      distillation: λ and t.
      state: of both.
      batch: with histories of the longer of their lengths.
      pace: of both.

    Returns:
      The next state; the student's scalars as in `train_step`, with distillation_loss in its loss, and the
      teacher's as teacher_loss and so on.
    """
    companion, metrics, teacher_BxM = learn(
        *_learner(teacher), state.companion, _own(teacher, batch), pace, lambda _: {}
    )
    shared = ("learning_rate", "examples")
    beside = {f"teacher_{name}": value for name, value in metrics.items() if name not in shared}
    batch = _own(student, batch)
    more_terms = _term(teacher_BxM, batch, distillation)
    state, metrics, _ = learn(*_learner(student), state, batch, pace, more_terms)
    return state.replace(companion=companion), metrics | beside


def offline_step(
    student: Setup,
    teacher: Setup,
    state: TrainState,
    batch: Batch,
    pace: Pace,
    teacher_variables: Variables,
) -> tuple[TrainState, Metrics]:
    """A step of the student from the labels and a teacher that stays as it is.

    Args:
      student: the student's run, whose config is a `DistillConfig`.
      teacher: the teacher's run.
      state: the student's.
      batch: with histories of the longer of their lengths.
      pace: the student's.
      teacher_variables: the teacher's variables, as evaluation uses them.

    Returns:
      As `online_step`, without the teacher's scalars but for its log loss.
    """
    config = student.config
    own = _own(teacher, batch)
    teacher_BxM = teacher.model.apply(teacher_variables, own, train=False).logits
    teacher_BxM += logit_shift(teacher, config)
    batch = _own(student, batch)
    more_terms = _term(teacher_BxM, batch, config.distillation)
    state, metrics, _ = learn(*_learner(student), state, batch, pace, more_terms)
    return state, metrics | {"teacher_log_loss": log_loss(teacher_BxM, batch)}


def _learner(setup: Setup) -> tuple[Any, ...]:
    return setup.model, setup.optimizer, setup.factor


def _own(setup: Setup, batch: Batch) -> Batch:
    """What a model sees of a batch."""
    return latest_events(batch, setup.config.data.max_len)


def _term(
    teacher_BxM: jax.Array, batch: Batch, distillation: DistillationConfig
) -> Callable[[Output], Metrics]:
    weight, temperature = distillation.weight, distillation.temperature
    return lambda output: {
        "distillation_loss": distillation_loss(output, teacher_BxM, batch, weight, temperature)
    }
