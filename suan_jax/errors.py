"""The one exception that a user can mend."""


class UserError(Exception):
    """A mistake in what the user gave: a file, a column, a field, a value.

    Its message is one sentence that names the place, the value and what was expected. Jobs print it
    without a traceback and exit with a non-zero code.
    """
