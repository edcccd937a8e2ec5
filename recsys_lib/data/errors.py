"""What can go wrong between a data set's address and its arrays."""

from __future__ import annotations


class DataError(RuntimeError):
    """A data set cannot be had or cannot be read; the message says what to do."""


class DownloadError(DataError):
    """A file could not be fetched or stored; nothing half-written is left behind.

    Args:
        message: what happened and what to do.
        status: the HTTP status when it was the server that refused, else None.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class CorruptFileError(DataError):
    """A file is there, but something in it is not what its format says."""
