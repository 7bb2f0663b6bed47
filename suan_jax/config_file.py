"""Configs on the command line: --config=FILE[:args] and --config.KEY=VALUE.

A config file is a Python file with a function `get_config` that returns a `Config`. What follows the colon,
as in `configs/suan.py:grade=1,store=/data/kuai`, are its keyword arguments, typed by its signature. The file
may define a model of its own, or import one from a file beside it.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import sys
import traceback
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from suan_jax.cli import translated_flag_errors
from suan_jax.config import Config, ModelConfig
from suan_jax.config_check import check_names, field_types, type_name, validate
from suan_jax.config_dict import model_class, swapped
from suan_jax.errors import UserError, nearest

# The flag belongs to the launch file that defines it, whose --help shows it.
flags.disclaim_key_flags()

_PARSERS = {
    int: flags.IntegerParser(),
    float: flags.FloatParser(),
    bool: flags.BooleanParser(),
    str: flags.ArgumentParser(),
}
_OVERRIDE = re.compile(r"--?(no)?config\.([^=]+)(?:=(.*))?", re.DOTALL)
_CONFIG = re.compile(r"--?config(=|$)")


def load(argument: str) -> Config:
    """The config of a file, such as "configs/suan.py" or "configs/suan.py:grade=1,store=/data/kuai".

    Raises:
      UserError: if the file cannot be read, has no get_config, takes other arguments, fails, or returns
        something that is not a `Config`.
    """
    path, arguments = _split(argument)
    get_config = _get_config(path)
    keywords = _keywords(str(path), get_config, arguments)
    config = _attempt(str(path), "get_config", functools.partial(get_config, **keywords))
    if not isinstance(config, Config):
        raise UserError(f"{path}: get_config returned a {type(config).__name__}, expected a Config")
    return config


def load_definitions(argument: str) -> None:
    """Runs a config file for what it defines, a model of its own for example; get_config is not called.

    A job that reads a work directory's config.json needs it where the run's model is not one of this package:
    the file names the model, and holds no code.

    Args:
      argument: as in `load`; what follows the colon is not read.

    Raises:
      UserError: if the file cannot be read, or fails.
    """
    _run(_split(argument)[0])


def _split(argument: str) -> tuple[Path, str]:
    """The file that --config names, and the text of its arguments."""
    path, _, arguments = argument.partition(":")
    if not path:
        raise UserError(f"--config={argument} names no file, expected FILE[:key=value,...]")
    return Path(path), arguments


def _run(path: Path) -> types.ModuleType:
    """A config file as a module, run."""
    try:
        source = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        near = nearest(str(path), map(str, path.parent.glob("*.py")))
        hint = f", the nearest is {near}" if near and not path.exists() else ""
        raise UserError(f"config file {str(path)!r} cannot be read: {reason}{hint}") from error
    # Files beside it can be imported, but hide nothing that could be imported before.
    folder = str(path.parent.absolute())
    if folder not in sys.path:
        sys.path.append(folder)
    # Dataclasses look their module up by name; no bytecode is kept, which may be stale.
    module = types.ModuleType(f"config_file_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    _attempt(str(path), "it", lambda: exec(compile(source, path, "exec"), vars(module)))
    return module


def _get_config(path: Path) -> Callable[..., Any]:
    """The function get_config of a config file."""
    module = _run(path)
    get_config = getattr(module, "get_config", None)
    if not callable(get_config):
        raise UserError(f"{path} has no function get_config that returns a Config")
    return get_config


def _attempt(path: str, what: str, function: Callable[[], Any]) -> Any:
    """Calls into a config file; a failure names the line."""
    try:
        return function()
    except UserError:
        raise
    except Exception as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
        line = error.lineno if isinstance(error, SyntaxError) else frames[-1].lineno if frames else None
        where = f" at line {line}" if line else ""
        reason = error.msg if isinstance(error, SyntaxError) else error
        raise UserError(f"{path}: {what} fails{where} with {type(error).__name__}: {reason}") from error


def _keywords(path: str, get_config: Callable[..., Any], text: str) -> dict[str, Any]:
    """The arguments after the colon, by name, typed by the annotations of `get_config`."""
    signature = _attempt(path, "the signature of get_config", lambda: _signature(get_config))
    given = {}
    for part in filter(None, text.split(",")):
        name, equals, value = part.partition("=")
        if not equals:
            raise UserError(f"{path}: the config argument {part!r} is not of the form key=value")
        if name not in signature:
            known = ", ".join(signature) or "none"
            raise UserError(f"{path}: get_config takes no argument {name!r}, its arguments are: {known}")
        try:
            given[name] = _PARSERS[signature[name][0]].parse(value)
        except ValueError as error:
            expected = type_name(signature[name][0])
            raise UserError(f"{path}: the config argument {name}={value} should be {expected}") from error
    missing = [name for name, (_, required) in signature.items() if required and name not in given]
    if missing:
        raise UserError(
            f"{path}: get_config needs the argument {missing[0]!r}: --config={path}:{missing[0]}=…"
        )
    return given


def _signature(get_config: Callable[..., Any]) -> dict[str, tuple[type, bool]]:
    """Argument names to their type, str unless it is int, float or bool, and whether they are required."""
    result = {}
    for name, parameter in inspect.signature(get_config, eval_str=True).parameters.items():
        kind = parameter.annotation if parameter.annotation in _PARSERS else str
        result[name] = (kind, parameter.default is inspect.Parameter.empty)
    return result


def _overrides(argv: Sequence[str]) -> dict[str, str | None]:
    """Dotted fields that `argv` sets, and to what text."""
    result = {}
    for argument, following in zip(argv, [*argv[1:], None], strict=True):
        match = _OVERRIDE.fullmatch(argument)
        if match:
            result[match[2]] = following if match[3] is None else match[3]
    return result


def _parse(argv: Sequence[str], argument: str) -> Config:
    """`load`, made ready for the overrides of `argv`: models swapped, names checked, types resolved."""
    if sum(bool(_CONFIG.match(text)) for text in argv) > 1:
        raise UserError("--config is given more than once, expected one config file")
    config, overrides = load(argument), _overrides(argv)
    for name, value in overrides.items():
        holder, _, last = name.rpartition(".")
        model = functools.reduce(lambda node, part: getattr(node, part, None), holder.split("."), config)
        if last == "name" and isinstance(model, ModelConfig):
            parent, _, field = holder.rpartition(".")
            node = functools.reduce(getattr, filter(None, parent.split(".")), config)
            setattr(node, field, swapped(model, model_class(value or "", f"config.{name}")))
    check_names(config, overrides)
    _resolve_types(config)
    return config


def _resolve_types(config: Any) -> None:
    """Writes types over the strings that postponed annotations leave: ml_collections reads no strings."""
    for field in dataclasses.fields(config):
        field.type = field_types(type(config))[field.name]
        if dataclasses.is_dataclass(getattr(config, field.name)):
            _resolve_types(getattr(config, field.name))


def define_config(
    kind: type[Config] = Config,
    flag_values: flags.FlagValues = flags.FLAGS,
    argv: Sequence[str] | None = None,
) -> flags.FlagHolder[Config]:
    """Defines --config for a launch file; the value is the config with its overrides, validated.

    Args:
      kind: class of the config that the job reads; no other is taken.
      flag_values: where the flag is defined.
      argv: the command line in which overrides are looked for; sys.argv unless given.
    """
    argv = sys.argv if argv is None else argv
    given = any(_CONFIG.match(argument) for argument in argv)
    holder = config_flags.DEFINE_config_dataclass(
        "config",
        Config(model=ModelConfig()),
        "config file and its arguments, FILE[:key=value,...]; --config.KEY=VALUE sets a field, for example "
        "--config.train.steps=100; suan_jax/config.py explains every field",
        flag_values=flag_values,
        # Without a file there is nothing to override, and ml_collections would fail while defining.
        sys_argv=list(argv) if given else [],
        parse_fn=functools.partial(_parse, argv),
    )

    def present_and_valid(config: Config) -> bool:
        if not flag_values["config"].present:
            raise UserError("--config=FILE is missing, for example --config=configs/quickstart.py")
        if type(config) is not kind:
            raise UserError(
                f"--config gives a {type(config).__name__}, which {config.job} reads, expected a "
                f"{kind.__name__} for {kind.job}"
            )
        validate(config)
        return True

    flags.register_validator("config", present_and_valid, flag_values=flag_values)
    return holder


def load_config(argv: Sequence[str], kind: type[Config] = Config) -> Config:
    """The config of a command line, such as ["--config=configs/din.py", "--config.train.steps=100"].

    Args:
      argv: the flags.
      kind: class of the config.

    Raises:
      UserError: as a launch file would.
    """
    flag_values = flags.FlagValues()
    command = ["load_config", *argv]
    holder = define_config(kind, flag_values, command)
    with translated_flag_errors(flag_values):
        flag_values(command)
    return holder.value


def default_workdir(flag_values: flags.FlagValues = flags.FLAGS) -> Path:
    """Where a run goes that is not told: runs/ and the config file's name without its suffix."""
    argument = config_flags.get_config_filename(flag_values["config"])
    return Path("runs") / Path(argument.partition(":")[0]).stem
