"""What ends a job with one sentence instead of a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in what the user gave: a file, a column, a field, a value.

    Its message is one sentence that names the place, the value and what was expected. Jobs print it
    without a traceback and exit with `exit_code`.
    """

    exit_code = 2


class Preempted(Exception):
    """The job was told to stop, has saved what it had, and goes on when its command is repeated.

    Schedulers retry on `exit_code`, which is EX_TEMPFAIL of sysexits.h.
    """

    exit_code = 75


def nearest(name: str, known: Iterable[str]) -> str:
    """The one of the `known` names that `name` was most likely meant to be; empty if none is known."""
    return next(iter(difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.0)), "")
