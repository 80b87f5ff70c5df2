"""The check that every reader of code makes, before a linker or a driver gets it."""


def require(condition: bool, expected: str) -> None:
    """Refuse code without what is expected of it.

    Raises:
        ValueError: "expected ..." where the condition does not hold.
    """
    if not condition:
        raise ValueError(f"expected {expected}")
