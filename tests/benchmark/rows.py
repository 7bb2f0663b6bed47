"""What tests look for in the rows of suites."""

TIMES = ("ms", "ms_low", "ms_high")


def positive(row, *names):
    return all(isinstance(row[name], (int, float)) and row[name] > 0 for name in names)
