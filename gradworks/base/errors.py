"""The one exception that is shown to people without a traceback."""


class InputError(ValueError):
    """Something a person gave is wrong: parameters, data, files.

    The message has at most three lines and names the file and the key or row, what was found and what was expected.
    """
