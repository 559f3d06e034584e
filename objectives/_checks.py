from ._actor_terms import AbstractActorTerm


def check_discount(discount: float) -> None:
    """Raises `ValueError` unless it lies strictly between 0 and 1."""
    if not 0 < discount < 1:
        raise ValueError(f"`discount` lies strictly between 0 and 1; got {discount}.")


def check_expectile(expectile: float) -> None:
    """Raises `ValueError` unless it lies strictly between 0 and 1."""
    if not 0 < expectile < 1:
        raise ValueError(f"`expectile` lies strictly between 0 and 1; got {expectile}.")


def check_rate(rate: float) -> None:
    """Raises `ValueError` unless it is a share of the way."""
    if not 0 <= rate <= 1:
        raise ValueError(f"`target_rate` is a share of the way, in [0, 1]; got {rate}.")


def refuse_score(actor: AbstractActorTerm, objective: str, values: str) -> None:
    """Raises `ValueError` if the actor wants scores of actions, where there are none."""
    if actor.needs_score:
        raise ValueError(
            f"{objective} learns {values}, which cannot score the actions that "
            f"{type(actor).__name__} asks about: use AWR, or an objective that scores actions, "
            "such as GCIQL."
        )


def check_positive(name: str, value: float | int) -> None:
    """Raises `ValueError` unless it is."""
    if not value > 0:
        raise ValueError(f"`{name}` must be positive; got {value}.")
