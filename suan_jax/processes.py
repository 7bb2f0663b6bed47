"""Several processes, one a host or an accelerator, that run one job together.

Each starts with the same command, is told of the others by `connect`, and takes the same steps in the same
order. One of them, the first, writes the files that are not split, and speaks.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import zlib
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from absl import flags
from jax.experimental import multihost_utils

from suan_jax.errors import JobEnd, Preempted, Unreached, UserError

# The flags belong to the launch file that asks for them, whose --help shows them.
flags.disclaim_key_flags()

Result = TypeVar("Result")

_MINUTES = 5.0  # for which processes wait for each other

_ENDS = {end.__name__: end for end in (UserError, Unreached, Preempted)}

_FLAGS = ("distributed", "coordinator", "processes", "process")


def define_flags() -> None:
    """Defines the flags by which a job is told of its other processes, for `connect_by_flags`."""
    flags.DEFINE_boolean(
        "distributed", False, "this is one of several processes, which Slurm or the TPU tells of each other"
    )
    flags.DEFINE_string("coordinator", "", "HOST:PORT of the first of several processes; any free port of it")
    flags.DEFINE_integer("processes", None, "how many there are, with --coordinator", lower_bound=1)
    flags.DEFINE_integer("process", None, "which of them this is, from 0, with --coordinator", lower_bound=0)
    for name in _FLAGS:
        flags.declare_key_flag(name)


def connect_by_flags() -> None:
    """Joins the other processes, if the flags speak of any; before JAX is used.

    Raises:
      UserError: if the flags do not fit each other, the coordinator's port is taken, or the cluster tells
        nothing.
    """
    distributed, coordinator, count, index = (flags.FLAGS[name].value for name in _FLAGS)
    if coordinator:
        if distributed:
            raise UserError("--distributed and --coordinator are given, expected one of them")
        if count is None or index is None or index >= count:
            raise UserError(
                f"--coordinator is given with --processes={count} and --process={index}, expected their "
                "number, and which of them this is, from 0"
            )
        _check_address(coordinator, binds=index == 0)
        _join(coordinator, count, index)
        return
    for name, value in (("processes", count), ("process", index)):
        if value is not None:
            raise UserError(f"--{name}={value} is given without --coordinator=HOST:PORT")
    if distributed:
        try:
            jax.distributed.initialize()
        except ValueError as error:
            raise UserError(
                "--distributed is given, and no cluster tells of other processes: give --coordinator, "
                "--processes and --process instead"
            ) from error


def _check_address(coordinator: str, binds: bool) -> None:
    """Checks what JAX would crash on: an address that is none, or whose port is taken where it `binds`."""
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise UserError(f"--coordinator={coordinator} is no address, expected HOST:PORT")
    if binds:
        both = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        try:
            socket.create_server(("", int(port)), family=family, dualstack_ipv6=both).close()
        except OSError as error:
            raise UserError(
                f"--coordinator={coordinator} is not free on this host ({os.strerror(error.errno)}): give "
                "another port to all processes"
            ) from error


def _join(coordinator: str, count: int, index: int) -> None:
    """Waits for the other processes, and ends this one with a sentence if they do not come.

    JAX, whose own limit comes later, would abort the process from C++, where no error can be caught.
    """
    shown = f"{count} processes at {coordinator}"
    print(f"waiting for {shown}, at most {_MINUTES:g} minutes", file=sys.stderr, flush=True)
    limit = threading.Timer(60 * _MINUTES, _give_up, [coordinator, shown])
    limit.daemon = True
    limit.start()
    jax.distributed.initialize(coordinator, count, index, initialization_timeout=int(60 * _MINUTES) + 60)
    limit.cancel()


def _give_up(coordinator: str, shown: str) -> None:
    host, _, port = coordinator.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        reason = "not all of them have come"
    except OSError as error:
        reason = f"the first cannot be reached ({error.strerror or error})"
    print(
        f"error: waited {_MINUTES:g} minutes for {shown}, and {reason}: start each with the same "
        "--coordinator and a --process of its own",
        file=sys.stderr,
        flush=True,
    )
    os._exit(UserError.exit_code)


def is_several() -> bool:
    """Whether this is one of several processes."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_first() -> bool:
    """Whether this is the first process, or the only one."""
    return not is_several() or jax.process_index() == 0


def by_first(make: Callable[[], Result]) -> Result:
    """What `make` returns in the first process, in all of them; the others do not call it.

    Args:
      make: returns what JSON can hold.

    Raises:
      JobEnd: in all of them, and of the same class, if `make` raises it. Any other error is raised in the
        first alone, which ends with it; JAX then ends the others, who wait for the answer.
    """
    if not is_several():
        return make()
    answer = {}
    if is_first():
        try:
            answer = {"result": make()}
        except JobEnd as error:
            answer = {"end": type(error).__name__, "sentence": str(error)}
    answer = _shared(answer)
    if "end" in answer:
        raise _ENDS[answer["end"]](answer["sentence"])
    return answer["result"]


def check_same(value: str, what: str) -> None:
    """Checks that all processes have the same value.

    Args:
      value: this process's.
      what: what it is, as "the log".

    Raises:
      UserError: in all of them, if they differ.
    """
    if is_several():
        codes = multihost_utils.process_allgather(np.uint32(zlib.crc32(value.encode())))
        if len(np.unique(codes)) > 1:
            raise UserError(f"{what} is not the same in all {len(codes)} processes, which must read the same")


def wait_for_all(moment: str) -> None:
    """Returns when all processes have come to this moment, which all of them name alike."""
    if is_several():
        multihost_utils.sync_global_devices(moment)


def _shared(answer: dict[str, Any]) -> dict[str, Any]:
    """The first process's `answer`, by way of JSON."""
    text = json.dumps(answer).encode()
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    # Few lengths, as each is a program of its own.
    padded = np.zeros(1 << max(10, (size - 1).bit_length()), np.uint8)
    padded[: len(text)] = np.frombuffer(text[: len(padded)], np.uint8)
    whole = np.asarray(multihost_utils.broadcast_one_to_all(padded), np.uint8)
    return json.loads(whole[:size].tobytes())
