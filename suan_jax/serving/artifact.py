"""An exported model: a program, its weights, and what turns raw values into ids; no code of the models.

A directory with

    model.stablehlo   the program, by `jax.export`: (weights, batch) → probabilities (B, M), any B and M,
                      for CPU and CUDA
    weights.npz       name to array
    schema.json       features, max_len, and how each table and dense column reads raw values
    vocabulary/       per vocabulary, NAME.json: raw value to id
    example.json      a request, as `launch/serve.py` takes it, and its probabilities
    example.npz       the batch that it becomes, and its probabilities
    SHA256SUMS        checksums of all these, which loading compares, and `sha256sum -c SHA256SUMS` too
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np

from suan_jax.batch import Batch
from suan_jax.data.blocking import Scale
from suan_jax.errors import UserError
from suan_jax.files import read_json
from suan_jax.paths import check_local
from suan_jax.schema import Schema
from suan_jax.serving.ids import make_encoder
from suan_jax.serving.request import Raw, RequestEncoder, User, in_parts

FORMAT, VERSION = "suan-jax-artifact", 2
PROGRAM, WEIGHTS, SCHEMA = "model.stablehlo", "weights.npz", "schema.json"
EXAMPLE, EXAMPLE_BATCH = "example.json", "example.npz"
VOCABULARY = "vocabulary"
CHECKSUMS = "SHA256SUMS"
_CHECKSUM = re.compile(r"([0-9a-f]{64})  ([^\0]+)")
_UNUSED = ("label",)
_AGAIN = "copy or export the artifact again"


class Artifact:
    """Scores requests with what `launch/export.py` wrote; safe under threads.

    Attributes:
      requests: turns raw requests into batches.
    """

    def __init__(self, directory: str | Path):
        """Loads it.

        Raises:
          UserError: if the directory holds no artifact, or one of another version, one that is damaged or
            lacks a file, or one for other devices than this process has.
        """
        check_local(directory)
        directory = Path(directory)
        if not is_artifact(directory):
            raise UserError(f"{directory} is no artifact, which launch/export.py writes: it has no {PROGRAM}")
        known = _check_files(directory)
        description = read_json(directory / SCHEMA)
        if (description.get("format"), description.get("version")) != (FORMAT, VERSION):
            raise UserError(f"{directory} is no artifact of version {VERSION}: export it again")
        vocabularies = (f"{VOCABULARY}/{name}.json" for name in _vocabularies(description))
        for name in (PROGRAM, WEIGHTS, SCHEMA, *vocabularies):
            if name not in known:
                raise UserError(f"{directory / CHECKSUMS} is damaged, it lacks {name}: {_AGAIN}")
        self.requests = read_encoder(directory, description)
        program = load_program(directory / PROGRAM)
        with np.load(directory / WEIGHTS, allow_pickle=False) as arrays:
            self._weights = jax.device_put(dict(arrays), jax.devices()[0])
        self._call = jax.jit(program.call)

    def score(self, user: User, candidates: Sequence[Raw]) -> np.ndarray:
        """Probabilities of a click, (M,) float32; arguments and errors as of `Scorer.score`."""
        encoded = self.requests.user(user)
        parts = []
        for part, slots in in_parts(candidates):
            arrays = flat_batch(self.requests.batch(encoded, part, slots))
            parts.append(np.asarray(self._call(self._weights, arrays))[0, : len(part)])
        return np.concatenate(parts)


def is_artifact(directory: Path) -> bool:
    """Whether an artifact was written there, be it damaged."""
    return any((directory / name).is_file() for name in (PROGRAM, WEIGHTS, CHECKSUMS))


def checksum_lines(directory: Path, names: Iterable[str]) -> str:
    """What `CHECKSUMS` says of files, a line each."""
    return "".join(f"{_checksum(directory / name)}  {name}\n" for name in sorted(names))


def _check_files(directory: Path) -> set[str]:
    """The names in `CHECKSUMS`, each of which is that of a sound file."""
    path = directory / CHECKSUMS
    try:
        lines = path.read_text(errors="replace").splitlines()
        matches = [_CHECKSUM.fullmatch(line) for line in lines]
        if not all(matches):
            raise UserError(f"{path} is damaged: {_AGAIN}")
        for match in matches:
            path = directory / match[2]
            if _checksum(path) != match[1]:
                raise UserError(f"{path} is damaged, its checksum is not that in {CHECKSUMS}: {_AGAIN}")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): {_AGAIN}") from error
    return {match[2] for match in matches}


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _vocabularies(description: dict[str, Any]) -> list[str]:
    """The tables that have one."""
    return [name for name, table in description["tables"].items() if table["kind"] == "vocabulary"]


def load_program(path: Path) -> jax.export.Exported:
    """The program of an artifact.

    Raises:
      UserError: if what reads it is not installed, or it is not for devices as the first of this process.
    """
    require_flatbuffers()
    program = jax.export.deserialize(bytearray(path.read_bytes()))
    platform = jax.export.default_export_platform()
    if platform not in program.platforms:
        raise UserError(f"{path} is for {' and '.join(program.platforms)}, and this process has {platform}")
    return program


def require_flatbuffers() -> None:
    """Raises `UserError` if `jax.export` lacks what it writes and reads programs with."""
    try:
        import flatbuffers  # noqa: F401
    except ModuleNotFoundError as error:
        raise UserError(
            f"{error.name} is not installed; pip install -e '.[serving]' brings what artifacts need"
        ) from error


def flat_batch(batch: Batch) -> dict[str, np.ndarray]:
    """What the program takes of a batch, by field, or by group/feature."""
    flat: dict[str, np.ndarray] = {}
    for field in dataclasses.fields(batch):
        value = getattr(batch, field.name)
        if isinstance(value, dict):
            flat |= {f"{field.name}/{name}": ids for name, ids in value.items()}
        elif field.name not in _UNUSED:
            flat[field.name] = value
    return flat


def describe_encoder(requests: RequestEncoder) -> tuple[dict[str, Any], dict[str, dict[str, int]]]:
    """What `read_encoder` reads: of schema.json, and the vocabularies by name."""
    tables = {name: encoder.describe() for name, encoder in requests.encoders.items()}
    description = {
        "schema": requests.schema.to_dict(),
        "max_len": requests.max_len,
        "tables": tables,
        "dense": {name: dataclasses.asdict(scale) for name, scale in requests.scales.items()},
    }
    return description, {name: dict(requests.encoders[name].ids) for name in _vocabularies(description)}


def read_encoder(directory: Path, description: dict[str, Any]) -> RequestEncoder:
    """The encoder of an artifact's requests."""
    ids = {name: read_json(directory / VOCABULARY / f"{name}.json") for name in _vocabularies(description)}
    encoders = {
        name: make_encoder(name, table, ids.get(name, {})) for name, table in description["tables"].items()
    }
    scales = {name: Scale(**scale) for name, scale in description["dense"].items()}
    return RequestEncoder(
        Schema.from_dict(description["schema"]), encoders, scales, int(description["max_len"])
    )
