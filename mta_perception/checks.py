"""The checks that frozen settings make of themselves as they are built."""

import math


def require(condition: bool, message: str) -> None:
    """Raise ValueError with `message` unless the condition holds."""
    if not condition:
        raise ValueError(message)


def require_counts(**values: int) -> None:
    """Raise ValueError for the first value, given by its name, that is no whole number from one to
    a million."""
    for name, value in values.items():
        require(
            isinstance(value, int) and 1 <= value <= 1_000_000,
            f'{name}={value} is not a whole number from 1 to 1000000.',
        )


def require_positive(**values: float) -> None:
    """Raise ValueError for the first value, given by its name, that is not positive and finite."""
    for name, value in values.items():
        require(
            isinstance(value, (int, float)) and math.isfinite(value) and value > 0,
            f'{name}={value} is not a positive finite number.',
        )
