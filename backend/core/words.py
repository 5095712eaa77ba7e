"""Wording of sentences that the service composes."""


def counted(number: int, noun: str) -> str:
    """Return the number and the noun, with an s in the plural: `1 key`, `2 keys`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
