"""Checks of single values at the door: what is wrong is told in one sentence that names the option."""

import difflib
from typing import Any

from .errors import ConfigError


def nearest(name: str, known: list[str] | tuple[str, ...]) -> str:
    """The end of a sentence: `; did you mean 'x'?` when one of the known names is close, else a full stop."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else "."


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raises `ConfigError` for a value that is not one of the choices."""
    if value not in choices:
        raise ConfigError(f"{name}={value!r} is not one of {', '.join(choices)}{nearest(str(value), choices)}")


def check_int(name: str, value: Any, minimum: int, maximum: int | None = None) -> None:
    """Raises `ConfigError` for what is no whole number in the range."""
    if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
        raise ConfigError(f"{name}={value!r} must be a whole number of at least {minimum}.")
    if maximum is not None and value > maximum:
        raise ConfigError(f"{name}={value!r} must be at most {maximum}.")


def check_number(
    name: str,
    value: Any,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> None:
    """Raises `ConfigError` for what is no finite number in the range."""
    # NaN fails every comparison, so each bound is stated as what must hold.
    holds = isinstance(value, (int, float)) and not isinstance(value, bool)
    holds = holds and abs(value) != float("inf") and value == value
    holds = holds and (minimum is None or value >= minimum) and (maximum is None or value <= maximum)
    holds = holds and (above is None or value > above) and (below is None or value < below)
    if not holds:
        words = {"at least": minimum, "at most": maximum, "above": above, "below": below}
        bounds = " and ".join(f"{word} {bound:g}" for word, bound in words.items() if bound is not None)
        raise ConfigError(f"{name}={value!r} must be a number {bounds}.")
