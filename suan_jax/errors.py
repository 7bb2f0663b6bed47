"""What ends a job with one sentence instead of a traceback."""

from __future__ import annotations

import difflib
import errno
import os
import reprlib
from collections.abc import Iterable
from typing import Any

_REMEDIES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EFBIG: "raise the limit on file sizes",
}


class JobEnd(Exception):
    """Ends a job with one sentence, its message, instead of a traceback, and with `exit_code`."""

    exit_code: int


class UserError(JobEnd):
    """A mistake in what the user gave: a file, a column, a field, a value.

    Its message names the place, the value and what was expected.
    """

    exit_code = 2


class Unreached(JobEnd):
    """What is needed did not answer, and may do so when the command is repeated.

    Schedulers retry on `exit_code`, which is EX_TEMPFAIL of sysexits.h.
    """

    exit_code = 75


class Preempted(JobEnd):
    """The job was told to stop, has saved what it had, and goes on when its command is repeated.

    Schedulers retry on `exit_code`, which is EX_TEMPFAIL of sysexits.h.
    """

    exit_code = 75


def nearest(name: str, known: Iterable[str]) -> str:
    """The one of the `known` names that `name` was most likely meant to be; empty if none is known."""
    return next(iter(difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.0)), "")


_SHOWN = 60  # characters

_repr = reprlib.Repr()
_repr.maxlevel, _repr.maxlist, _repr.maxtuple, _repr.maxdict = 3, 3, 3, 3
_repr.maxstring = _repr.maxlong = _repr.maxother = _SHOWN


def shown(value: Any) -> str:
    """A value as a message shows it: its `repr`, cut short however long or deep it is."""
    try:
        text = _repr.repr(value)
    except ValueError:  # an integer of more digits than Python writes out
        return f"a {type(value).__name__} of too many digits"
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def full_disk(error: BaseException | None) -> str:
    """A sentence if `error`, or what it arose from, comes down to a full disk or a limit; else empty.

    It names the file that could not be written, if the error does, and what to do.
    """
    while error is not None:
        number, name = getattr(error, "errno", None), getattr(error, "filename", None)
        for code, remedy in _REMEDIES.items():
            # Libraries in C++ report only the text.
            if number == code or os.strerror(code) in str(error):
                reason = f"cannot write {name}: {os.strerror(code)}" if name else os.strerror(code)
                return f"{reason}: {remedy} and repeat the command"
        error = error.__cause__ or error.__context__
    return ""
