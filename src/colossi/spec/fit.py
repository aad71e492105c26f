"""Which numbers fit: what an error offers in place of a number that does not divide another."""


def divisors_near(whole: int, number: int) -> str:
    """The divisors of `whole` next below and next above `number`, as "2 or 4"."""
    below = next(n for n in range(min(number, whole), 0, -1) if whole % n == 0)
    above = next((n for n in range(number, whole + 1) if whole % n == 0), below)
    return " or ".join(map(str, sorted({below, above})))


def multiples_near(part: int, number: int) -> str:
    """The positive multiples of `part` next below and next above `number`, as "4 or 8"."""
    below, above = number // part * part, -(-number // part) * part
    return " or ".join(map(str, sorted({below or above, above})))
