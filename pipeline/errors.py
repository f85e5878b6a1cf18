"""The errors that users see. Each message names the setting or field, the value and the remedy, in that order."""

from __future__ import annotations

import os


class EmoStreamError(Exception):
    """The base of all errors that EmoStream raises on purpose; a command prints them without a traceback."""


class SettingError(EmoStreamError):
    """A setting or option has an unknown name or an invalid value."""


class JavaError(EmoStreamError):
    """Java is missing, too old, or does not run."""


class JarsError(EmoStreamError):
    """The pinned jars cannot be downloaded or are damaged."""


class KafkaUnreachableError(EmoStreamError):
    """Kafka did not answer in time, or refused a record or a topic."""


class BrokerError(EmoStreamError):
    """The embedded Kafka could not be started, or it ended by itself."""


class MessageError(EmoStreamError):
    """A record or request body is not the expected message."""


class PortInUseError(EmoStreamError):
    """Another process already listens on the address that a stage is configured to use."""


class BufferFullError(EmoStreamError):
    """The buffer is full, and no reaction of the request was accepted."""


class ClientError(EmoStreamError):
    """A client could not reach the registry or a subscriber, or its request was refused.

    `status` is the HTTP status, or None without an answer. `detail` is the server's explanation. `retry_after_s` is how
    long to wait before the next attempt, seconds.
    """

    def __init__(
        self, message: str, *, status: int | None = None, detail: str = "", retry_after_s: float = 0.0
    ) -> None:
        super().__init__(message)
        self.status = status
        self.detail = detail
        self.retry_after_s = retry_after_s


def plain_reason(error: BaseException) -> str:
    """Return why an operation failed, such as "connection refused": the system's words without a library's."""
    inner = getattr(error, "reason", None)
    if isinstance(inner, BaseException):
        return plain_reason(inner)
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        # Libraries put words of their own into `strerror`. The numbers of a failed look-up of a name are negative.
        words = os.strerror(error.errno) if error.errno > 0 else error.strerror
        return words[:1].lower() + words[1:]
    if isinstance(error, TimeoutError):
        return "it took too long"
    return str(error) or type(error).__name__
