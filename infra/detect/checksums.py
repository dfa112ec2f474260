"""Check digits: pure arithmetic on digits and letters that a pattern has found."""

_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)


def luhn(digits: str) -> bool:
    """ISO/IEC 7812-1, annex B: cards, and NPIs behind 80840."""
    values = [int(digit) for digit in reversed(digits)]
    return (sum(values[::2]) + sum(_DOUBLED[value] for value in values[1::2])) % 10 == 0


def mod97(code: str) -> bool:
    """ISO 7064 MOD 97-10 as an IBAN uses it: country and check digits moved to the end, letters as 10 to 35."""
    return int("".join(str(int(char, 36)) for char in code[4:] + code[:4])) % 97 == 1


def dea(digits: str) -> bool:
    """The seven digits of a DEA registration number: the last one checks the others."""
    d = [int(digit) for digit in digits]
    return (d[0] + d[2] + d[4] + 2 * (d[1] + d[3] + d[5])) % 10 == d[6]
