"""What every launch file shares: flags, help, and how a job ends.

A job that ends for a reason that its user can mend prints one sentence and no traceback. Exit codes: 0 done,
2 a mistake of the user or a full disk, 75 preempted or an object store not reached (repeat the command to go
on), 130 interrupted from the keyboard, 141 its output was no longer read, 1 anything else, with a traceback.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import inspect
import logging
import os
import re
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from absl import app, flags
from absl import logging as absl_logging

from suan_jax.errors import JobEnd, Preempted, UserError, full_disk, nearest, shown
from suan_jax.notice import notice

_HELP = ("--help", "-help", "-h", "-?", "--helpshort", "--helpfull")
_INTERRUPTED = 128 + 2  # what a shell reports of a process that SIGINT ended
_BROKEN_PIPE = 128 + 13  # likewise SIGPIPE
_ILLEGAL = re.compile(r"flag --(?P<name>[^=]+)=(?P<value>.*?): (?P<reason>.*)", re.DOTALL)


def run(main: Callable[[Sequence[str]], int | None], passes_on: bool = False) -> NoReturn:
    """Parses flags, calls `main` with the program's name, and exits with its exit code (None is 0).

    Args:
      main: the job.
      passes_on: whether `main` also gets, as they are, the arguments behind a bare "--".
    """
    # Libraries below log what they save and each file that they do not like; what ends a job is raised.
    absl_logging.set_verbosity(absl_logging.FATAL)
    logging.getLogger("jax").setLevel(logging.WARNING)  # an accelerator left unused is worth a line
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # what it gives up it also raises
    sys.unraisablehook = _report_unraisable
    warnings.filterwarnings("ignore", "coroutine .* was never awaited")  # see _report_unraisable
    try:
        app.run(main, flags_parser=functools.partial(_parse_flags, passes_on=passes_on))
    except Preempted as error:
        notice(str(error))
        sys.exit(error.exit_code)
    except JobEnd as error:
        _end(f"error: {error}", error.exit_code)
    except BrokenPipeError:  # whoever reads the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(_BROKEN_PIPE)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_INTERRUPTED)  # XLA, stopped in the midst of compiling, would crash at Python's own end
    except MemoryError as error:
        _end(f"error: memory is not enough ({error}): ask for less", UserError.exit_code)
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            _end(f"error: {shown(error.filename)} is no path: {error.strerror}", UserError.exit_code)
        if not (sentence := full_disk(error)):
            raise
        _end(f"error: {sentence}", UserError.exit_code)


def _report_unraisable(unraisable: Any) -> None:
    # Where one of many writes fails, Orbax closes the event loop, and each of the others complains of that.
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def _end(sentence: str, code: int) -> NoReturn:
    print(" ".join(sentence.split()), file=sys.stderr)
    sys.exit(code)


def _parse_flags(argv: Sequence[str], passes_on: bool = False) -> list[str]:
    """Parses the command line; absl's own parser would print its usage."""
    end = list(argv).index("--") if passes_on and "--" in argv else len(argv)
    argv, passed = argv[:end], argv[end + 1 :]
    if any(argument in _HELP for argument in argv[1:]):
        print(_help(argv[0]))
        sys.exit(0)
    with translated_flag_errors(flags.FLAGS):
        rest = flags.FLAGS(argv)
    if len(rest) > 1:
        raise UserError(f"{rest[1]!r} is not expected here: every argument is a flag, --NAME=VALUE")
    return [*rest, *passed]


def _help(program: str) -> str:
    """The launch file's docstring and its own flags."""
    lines = [inspect.cleandoc(sys.modules["__main__"].__doc__ or ""), "", "Flags:"]
    for flag in flags.FLAGS.get_key_flags_for_module(program):
        shown = f"--[no]{flag.name}" if flag.boolean else f"--{flag.name}=VALUE"
        plain = isinstance(flag.default, (int, float, str)) and flag.default != ""
        text = f"{flag.help} (default: {flag.default})" if plain else flag.help
        lines += [f"  {shown}", textwrap.indent(textwrap.fill(text, 96), " " * 6)]
    return "\n".join(lines)


@contextlib.contextmanager
def translated_flag_errors(flag_values: flags.FlagValues) -> Iterator[None]:
    """Turns absl's complaints about flags into a `UserError` that says what was expected."""
    try:
        yield
    except flags.UnrecognizedFlagError as error:
        raise UserError(_unknown_flag(error.flagname, flag_values)) from error
    except flags.IllegalFlagValueError as error:
        raise UserError(_illegal_value(error, flag_values)) from error
    except flags.Error as error:
        raise UserError(str(error)) from error


def _unknown_flag(name: str, flag_values: flags.FlagValues) -> str:
    root = name.partition(".")[0]
    if "." in name and _is_field(name, flag_values):
        return f"--{name} is not a flag, the field is set by --config.{name}"
    if root != name and root in flag_values:
        return f"--{name} changes a value of --{root}, which is missing: give --{root}=FILE before it"
    own = [flag.name for flag in flag_values.get_key_flags_for_module(sys.argv[0])]
    near = nearest(name, own or flag_values)
    return f"--{name} is not a flag" + (f", the nearest is --{near}" if near else "")


def _is_field(name: str, flag_values: flags.FlagValues) -> bool:
    """Whether --config.NAME would have set a field."""
    node = flag_values["config"].value if "config" in flag_values else None
    for part in name.split("."):
        node = getattr(node, part, None)
    return node is not None


def _illegal_value(error: flags.IllegalFlagValueError, flag_values: flags.FlagValues) -> str:
    match = _ILLEGAL.match(str(error))
    if not match or match["name"] not in flag_values:
        return str(error)
    name, value, reason = match.groups()
    flag = flag_values[name]
    if error.__context__ is None:  # a validator's complaint, not a parser's
        return f"--{name} is missing: {flag.help}" if flag.value is None else f"--{name}={value}: {reason}"
    if isinstance(flag.parser, flags.EnumParser):
        expected = "one of " + ", ".join(flag.parser.enum_values)
    else:
        expected = flag.parser.syntactic_help or f"a value of type {flag.flag_type()}"
    # A field of a config is named as errors about configs name it elsewhere.
    shown = name if name.startswith("config.") else f"--{name}"
    return f"{shown} is {value!r}, expected {expected}"
