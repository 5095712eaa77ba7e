"""Words for the sentences that the service composes."""


def counted(number: int, noun: str) -> str:
    """Return the number and the noun, with an s for the plural: `1 key`, `2 keys`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
