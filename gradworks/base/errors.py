"""The exception that is shown without a traceback."""


class InputError(ValueError):
    """Input of a user is wrong: parameters, data, files.

    The message has at most three lines and names the file and the key or row, what was found and what was expected.
    """
