"""The one error of data that can't be used."""


class DataError(ValueError):
    """A data set that can't be used; one line that names the file, the row and the remedy."""
