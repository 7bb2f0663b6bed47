"""A teacher that was trained before, made ready for a student's log."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import jax
import numpy as np

from suan_jax.data.block import Log
from suan_jax.distillation.config import DistillConfig
from suan_jax.errors import UserError
from suan_jax.layers.embedding import ROW_MULTIPLE
from suan_jax.notice import notice
from suan_jax.schema import GROUPS, OOV, Feature, Schema
from suan_jax.training.restore import restore_learnt
from suan_jax.training.setup import Setup
from suan_jax.training.state import TrainState, inference_variables
from suan_jax.training.warm_start import shared_ids
from suan_jax.training.workdir import SUMMARY

_MOST_TOLD = 8  # features in a sentence


def restore_teacher(config: DistillConfig, workdir: Path, log: Log) -> tuple[Setup, TrainState, str]:
    """The teacher of a student's run, on the student's mesh.

    Where the logs differ, as those of two days do, table rows follow the raw ids that they stand for; an id
    that the teacher does not know reads as unknown.

    Args:
      config: the student's run.
      workdir: the teacher's work directory.
      log: the student's log.

    Returns:
      Its run as it would be on the student's log, with its own lengths; its state, without an optimizer and
      with tables as evaluation reads them; and what tells its checkpoint from others.

    Raises:
      UserError: if there is no checkpoint, or the logs' features differ.
    """
    try:
        setup, state, digest = restore_learnt(workdir, config.mesh, config.distillation.dtype)
        check_schema(log.schema, setup.log.schema)
        _check_world(config, setup)
        accumulator = setup.config.optimizer.embedding_initial_accumulator
        state = state.replace(tables=jax.jit(inference_variables)(state, accumulator)["tables"])
        if setup.log.fingerprint != log.fingerprint:
            state = _on_log(state, setup, log)
    except UserError as error:
        raise UserError(f"the teacher {workdir}: {error}") from error
    if not (workdir / SUMMARY).exists():
        notice(f"the teacher {workdir} has not finished: its checkpoint of step {int(state.step)} teaches")
    own = setup.config.data
    data = dataclasses.replace(config.data, max_len=own.max_len, negative_rate=own.negative_rate)
    run = dataclasses.replace(setup.config, data=data, train=config.train)
    return dataclasses.replace(setup, config=run, log=log), state, digest


def logit_shift(teacher: Setup, config: DistillConfig) -> float:
    """What is added to a teacher's logits for a student who sees another share of the negatives.

    The odds that a model learns grow as negatives are left out (He et al., ADKDD 2014, section 6.3).
    """
    return math.log(teacher.config.data.negative_rate / config.data.negative_rate)


def check_schema(student: Schema, teacher: Schema) -> None:
    """Checks that a teacher finds its features in a student's log; vocabularies may have grown.

    Raises:
      UserError: naming the first features that differ.
    """
    here, there = _features(student), _features(teacher)
    different = [name for name in {**there, **here} if here.get(name) != there.get(name)]
    if different:
        told = "; ".join(
            f"{name}: {there.get(name, 'missing')} there and {here.get(name, 'missing')} here"
            for name in different[:_MOST_TOLD]
        )
        if len(different) > _MOST_TOLD:
            told += f"; and {len(different) - _MOST_TOLD} more"
        raise UserError(f"it was trained on a log of other features, so it cannot score this one ({told})")


def _check_world(config: DistillConfig, teacher: Setup) -> None:
    """Checks that ids of generated logs stand for the same."""
    mine, other = config.data, teacher.config.data
    if mine.store or other.store:
        return
    for name in ("seed", "items"):
        here, there = getattr(mine.synthetic, name), getattr(other.synthetic, name)
        if here != there:
            raise UserError(
                f"it knows another synthetic world: config.data.synthetic.{name} is {here}, expected {there}"
            )


def _features(schema: Schema) -> dict[str, str]:
    """What a model reads by its name, in words; in whatever order."""

    def words(feature: Feature) -> str:
        return f"table {feature.table}" + (f", {feature.values} values" if feature.values > 1 else "")

    named = {f"{group} {feature.name}": words(feature) for group in GROUPS for feature in schema.group(group)}
    roles = {name: getattr(schema, name) for name in ("item", "category", "action")}
    return (
        named
        | {f"dense {name}": f"column {place}" for place, name in enumerate(schema.dense)}
        | {f"role {name}": str(feature) for name, feature in roles.items()}
    )


def _on_log(state: TrainState, setup: Setup, log: Log) -> TrainState:
    """The state with its rows where `log` has their ids."""
    tables, accumulators, unknown = {}, {}, []
    for lookup in {lookup.table: lookup for lookup in setup.model.lookups}.values():
        size = log.schema.tables[lookup.vocabulary]
        here, there = shared_ids(lookup.vocabulary, log, setup.log)
        row = np.full(-(-size // ROW_MULTIPLE) * ROW_MULTIPLE, OOV)
        row[here] = there
        name = lookup.table
        for new, old in ((tables, state.tables), (accumulators, state.accumulators)):
            new[name] = jax.device_put(old[name][row], old[name].sharding)
        if len(here) < size:
            unknown.append(f"{size - len(here):,} of {size:,} {lookup.vocabulary} ids")
    notice(
        f"the teacher was trained on another log, {setup.log}: ids are matched by raw value, or taken as "
        f"they are where there are none; unknown to it: {', '.join(dict.fromkeys(unknown)) or 'none'}"
    )
    return state.replace(tables=tables, accumulators=accumulators)
