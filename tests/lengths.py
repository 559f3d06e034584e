import pytest


def at_length(cases, quick):
    """Cases to parametrize with, of which only the `quick` ones are checked by default; the others
    where `-m thorough` asks for it."""
    cases = list(cases)
    unknown = [case for case in quick if case not in cases]
    if unknown:
        raise ValueError(f"{unknown} are not among {cases}.")

    def param(case):
        if case in quick:
            return case
        values = case if isinstance(case, tuple) else (case,)
        return pytest.param(*values, marks=pytest.mark.thorough)

    return [param(case) for case in cases]
