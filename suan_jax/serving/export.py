"""The export job: a work directory's model as an artifact that needs none of its code."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from suan_jax.batch import Batch, blank_batch
from suan_jax.data.working_folder import working_folder
from suan_jax.errors import UserError
from suan_jax.evaluation.metrics import correct_for_down_sampling
from suan_jax.files import write_bytes, write_json
from suan_jax.models.model import Model, Variables
from suan_jax.paths import check_local
from suan_jax.schema import GROUPS
from suan_jax.serving import artifact
from suan_jax.serving.example import example_request
from suan_jax.serving.request import parse_request
from suan_jax.serving.scorer import Scorer

PLATFORMS = ("cpu", "cuda")


def export_run(workdir: Path, out: Path) -> dict[str, Any]:
    """Exports what `Scorer` would score with; see `artifact`.

    Args:
      workdir: of a training run.
      out: the directory to make.

    Returns:
      What was written, for a table: bytes of the program and of the weights, platforms, max_len.

    Raises:
      UserError: if the work directory is not right, or there is something at `out` already.
    """
    artifact.require_flatbuffers()
    check_local(out)
    if out.exists():
        raise UserError(f"--out={out} exists already, expected the name of a new directory")
    scorer = Scorer(workdir)
    # NumPy's files know no bfloat16, which tables may be.
    variables = jax.tree.map(
        lambda x: x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x, scorer.variables
    )
    weights = named_leaves(variables)
    program = export_program(scorer.model, variables, scorer.requests.max_len, scorer.negative_rate)
    with working_folder(out, "export") as folder:
        try:
            (folder / artifact.VOCABULARY).mkdir()
            _write(folder, scorer, weights, program)
            folder.replace(out)
        except OSError as error:
            raise UserError(f"cannot write {out}: {error.strerror}") from error
    return {
        "model": scorer.model.config.name,
        "program, bytes": (out / artifact.PROGRAM).stat().st_size,
        "weights, bytes": (out / artifact.WEIGHTS).stat().st_size,
        "platforms": ", ".join(PLATFORMS),
        "longest history": scorer.requests.max_len,
    }


def export_program(
    model: Model, variables: Variables, max_len: int, negative_rate: float
) -> jax.export.Exported:
    """The program (weights, batch) → probabilities (B, M) float32, for every B and M.

    Args:
      model: the model.
      variables: its variables, of which shapes and structure matter.
      max_len: L.
      negative_rate: of its training, for which probabilities are put right.
    """
    model = _without_kernel(model)
    structure = jax.tree.structure(variables)
    names = list(named_leaves(variables))

    def probabilities(weights: dict[str, jax.Array], arrays: dict[str, jax.Array]) -> jax.Array:
        batch = _unflatten(arrays)
        logits = model.apply(jax.tree.unflatten(structure, [weights[name] for name in names]), batch).logits
        return jax.nn.sigmoid(correct_for_down_sampling(logits, negative_rate))

    rows, candidates = jax.export.symbolic_shape("rows, candidates")
    small = artifact.flat_batch(blank_batch(model.schema, 2, max_len, 3))
    large = artifact.flat_batch(blank_batch(model.schema, 4, max_len, 7))

    def symbolic(one: np.ndarray, other: np.ndarray) -> jax.ShapeDtypeStruct:
        # An axis that differs between batches of other sizes is the axis of that size.
        free = {(2, 4): rows, (3, 7): candidates}
        shape = tuple(free.get(pair, pair[0]) for pair in zip(one.shape, other.shape, strict=True))
        return jax.ShapeDtypeStruct(shape, one.dtype)

    shapes = {name: symbolic(small[name], large[name]) for name in small}
    weights = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in named_leaves(variables).items()}
    return jax.export.export(jax.jit(probabilities), platforms=PLATFORMS)(weights, shapes)


def _without_kernel(model: Model) -> Model:
    """The model with XLA's own attention, which compiles for any platform and any number of candidates."""
    if not hasattr(model.config, "attention"):
        return model
    config = dataclasses.replace(model.config, attention="plain")
    return dataclasses.replace(model, config=config, module=model.module.clone(config=config))


def _write(
    directory: Path, scorer: Scorer, weights: dict[str, np.ndarray], program: jax.export.Exported
) -> None:
    description, vocabularies = artifact.describe_encoder(scorer.requests)
    head = {"format": artifact.FORMAT, "version": artifact.VERSION, "model": scorer.model.config.name}
    write_bytes(directory / artifact.PROGRAM, program.serialize())
    _write_arrays(directory / artifact.WEIGHTS, weights)
    write_json(directory / artifact.SCHEMA, {**head, **description})
    for name, ids in vocabularies.items():
        write_json(directory / artifact.VOCABULARY / f"{name}.json", ids)
    body = example_request(scorer.requests)
    user, candidates = parse_request(body)
    expected = scorer.score(user, candidates)
    write_json(directory / artifact.EXAMPLE, {"request": body, "probabilities": expected.tolist()})
    batch = scorer.requests.batch(scorer.requests.user(user), candidates, len(candidates))
    arrays = {**artifact.flat_batch(batch), "probabilities": expected[None].astype(np.float32)}
    _write_arrays(directory / artifact.EXAMPLE_BATCH, arrays)
    names = (path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())
    write_bytes(directory / artifact.CHECKSUMS, artifact.checksum_lines(directory, names).encode())


def _write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    content = io.BytesIO()
    np.savez(content, **arrays)
    write_bytes(path, content.getvalue())


def named_leaves(variables: Variables) -> dict[str, np.ndarray]:
    """Path, its keys joined by slashes, to array; in the order of the tree's leaves."""
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(x) for path, x in leaves}


def _unflatten(arrays: dict[str, jax.Array]) -> Batch:
    groups: dict[str, dict[str, jax.Array]] = {group: {} for group in GROUPS}
    plain = {}
    for key, value in arrays.items():
        group, _, name = key.partition("/")
        if name:
            groups[group][name] = value
        else:
            plain[key] = value
    label = jnp.zeros(plain["candidate_mask"].shape, jnp.float32)
    return Batch(**groups, **plain, label=label)
