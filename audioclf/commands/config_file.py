"""Files of options, and the defaults of a subcommand that they and a recipe make."""

import argparse
import dataclasses
import functools
import inspect
import io
from collections.abc import Callable, Iterable
from typing import Any, get_args

from ..checks import nearest
from ..config import TrainConfig
from ..errors import ConfigError
from ..recipes import Recipe
from .options import DataOptions

NOT_IN_FILE = ("config", "print_config", "as_json", "reading", "training")
"""Parameters of subcommands that are no options, or no sense, in a file."""


def with_defaults(command: Callable[..., int], arguments: list[str]) -> Callable[..., int]:
    """A subcommand whose defaults are those of the recipe and the file that are asked for on its command line.

    They are looked for before the rest is parsed, as the defaults of all other options depend on them.

    Raises:
        ConfigError: for a file that cannot be read, or an option in it that does not exist or has no such value.
    """
    own = [name for name in inspect.signature(command).parameters if name not in NOT_IN_FILE]
    asked = _asked_for(arguments)
    options = {} if asked.config is None else read(asked.config, [*own, *names_of(DataOptions), *names_of(TrainConfig)])
    if asked.recipe is not None and "recipe" in own:
        options["recipe"] = asked.recipe
    try:
        training = {name: options[name] for name in (*names_of(TrainConfig), "recipe") if name in options}
        defaults = {"training": TrainConfig.from_overrides(None, training)}
    except ConfigError as error:
        raise ConfigError(f"{asked.config}: {error}" if asked.config else str(error)) from None
    defaults["reading"] = DataOptions(**{name: options[name] for name in names_of(DataOptions) if name in options})
    return functools.partial(command, **defaults, **{name: options[name] for name in own if name in options})


def read(path: str, known: Iterable[str]) -> dict[str, Any]:
    """The options in a YAML file, by their names; YAML 1.2, in which `no` is a word and 1e-4 a number.

    Raises:
        ConfigError: for a file that cannot be read, is no YAML, or has an option that is not among the known ones.
    """
    from ruamel.yaml import YAML, YAMLError

    try:
        with open(path, encoding="utf-8-sig") as file:
            content = YAML(typ="safe", pure=True).load(file)
    except OSError as error:
        raise ConfigError(f"{path!r} cannot be read ({error.strerror or error}).") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path!r} is no YAML file: {' '.join(str(error).split())}") from None
    if not isinstance(content or {}, dict):
        raise ConfigError(f"{path!r} must hold options by name, such as 'num_epochs: 10', one a line.")
    options = {str(name).replace("-", "_"): value for name, value in (content or {}).items()}
    known = list(known)
    for name in options:
        if name not in known:
            raise ConfigError(f"{path}: There is no option {name!r}{nearest(name, known)}")
    return {name: _typed(path, name, value) for name, value in options.items()}


def to_yaml(options: dict[str, Any]) -> str:
    """The text of such a file, in the order of the options."""
    from ruamel.yaml import YAML

    yaml, text = YAML(), io.StringIO()
    yaml.dump(options, text)
    return text.getvalue()


def names_of(options: type) -> list[str]:
    """The names of a dataclass's fields."""
    return [field.name for field in dataclasses.fields(options)]


def _typed(path: str, name: str, value: Any) -> Any:
    """Names that look like numbers become the texts that they are on a command line; the rest checks itself."""
    if name in ("data", "valid", "folds", "protocol", "root", "fold") and isinstance(value, (int, float)):
        return str(value)
    if name in ("labels", "recipes", "seeds") and value is not None:
        if not isinstance(value, list):
            raise ConfigError(f"{path}: {name}={value!r} must be a list, such as [a, b].")
        return tuple(value if name == "seeds" else map(str, value))
    return value


def _asked_for(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--recipe", choices=get_args(Recipe))
    parser.add_argument("--config")
    try:
        return parser.parse_known_args(arguments)[0]
    except argparse.ArgumentError:
        return argparse.Namespace(recipe=None, config=None)  # tyro says what is wrong with it
