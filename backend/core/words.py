"""Words in sentences that the service composes."""


def counted(number: int, noun: str) -> str:
    """`1 key`, `2 keys`: the number and the noun, which takes an s in the plural."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
