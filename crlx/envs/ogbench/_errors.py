class DatasetError(ValueError):
    """A dataset cannot be used; the message says what to do about it."""
