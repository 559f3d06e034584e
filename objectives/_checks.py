"""Errors of settings, as `ValueError`, when an objective is built."""

from typing import TypeVar

from crlx import AbstractObjective, AbstractScoring

Params = TypeVar("Params")
State = TypeVar("State")
Batch = TypeVar("Batch")


def check_between(name: str, value: float) -> None:
    """Unless it lies strictly between 0 and 1."""
    if not 0 < value < 1:
        raise ValueError(f"`{name}` lies strictly between 0 and 1; got {value}.")


def check_share(name: str, value: float) -> None:
    """Unless it lies in [0, 1]."""
    if not 0 <= value <= 1:
        raise ValueError(f"`{name}` is a share, in [0, 1]; got {value}.")


def check_positive(name: str, value: float | int) -> None:
    """Unless it is."""
    if not value > 0:
        raise ValueError(f"`{name}` must be positive; got {value}.")


def check_not_negative(name: str, value: float | int) -> None:
    """Unless it is zero or more."""
    if not value >= 0:
        raise ValueError(f"`{name}` must not be negative; got {value}.")


def check_count(name: str, value: int) -> None:
    """Unless it is a whole number, 1 or more."""
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"`{name}` is a whole number, 1 or more; got {value}.")


def scoring(
    objective: AbstractObjective[Params, State, Batch],
) -> AbstractScoring[Params, State, Batch]:
    """The objective, unless it scores no actions."""
    if not isinstance(objective, AbstractScoring):
        raise ValueError(
            f"{type(objective).__name__} scores no actions, so they cannot be ranked: use "
            "Stochastic() or Greedy()."
        )
    return objective
