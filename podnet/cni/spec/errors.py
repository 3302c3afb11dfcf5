"""The errors of the CNI specification (section 5, "Error"), and of the library that runtimes test against."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from podnet.errors import PodnetError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "DECODING_FAILURE",
    "HOST_PORT_TAKEN",
    "INCOMPATIBLE_VERSION",
    "INTERNAL",
    "INVALID_CONFIG",
    "INVALID_ENVIRONMENT",
    "INVALID_NETNS",
    "IO_FAILURE",
    "LIMITED_CONNECTIVITY",
    "NOT_AVAILABLE",
    "TRY_AGAIN_LATER",
    "UNKNOWN_CONTAINER",
    "UNSUPPORTED_FIELD",
    "CNIError",
    "as_cni_error",
    "from_json",
]

INCOMPATIBLE_VERSION = 1
UNSUPPORTED_FIELD = 2  # the message must contain the key and the value
UNKNOWN_CONTAINER = 3  # tells the runtime that no DEL is needed
INVALID_ENVIRONMENT = 4  # the message must name the variables
IO_FAILURE = 5
DECODING_FAILURE = 6
INVALID_CONFIG = 7
INVALID_NETNS = 8  # of the reference library, not of the specification
TRY_AGAIN_LATER = 11
NOT_AVAILABLE = 50  # STATUS: ADD cannot be served
LIMITED_CONNECTIVITY = 51  # STATUS: and existing containers are impaired
HOST_PORT_TAKEN = 100  # from 100 on, a plugin's own
INTERNAL = 999  # of the reference library: any error without a code of its own


class CNIError(PodnetError):
    """An error that a plugin reports: ``code``, a short ``msg``, longer ``details``."""

    exit_code = 1

    def __init__(self, code: int, msg: str, details: str = "") -> None:
        super().__init__(code, msg, details)
        self.code = code
        self.msg = msg
        self.details = details

    def __str__(self) -> str:
        return f"{self.msg}; {self.details}" if self.details else self.msg

    def to_json(self, version: str = "") -> dict[str, Any]:
        """The error object; ``version`` is the configuration's, or empty where it is not known."""
        value: dict[str, Any] = {"cniVersion": version} if version else {}
        value |= {"code": self.code, "msg": self.msg}
        if self.details:
            value["details"] = self.details
        return value


def as_cni_error(error: Exception) -> CNIError:
    """Any exception as what the plugin reports: typed errors unchanged, so that a delegate's code arrives."""
    if isinstance(error, CNIError):
        return error
    if isinstance(error, PodnetError):
        return CNIError(INTERNAL, str(error))
    return CNIError(INTERNAL, f"unexpected {type(error).__name__}: {error}")


def from_json(value: Mapping[str, Any]) -> CNIError | None:
    """The error that a plugin printed, or ``None`` if this is no error object. Keys match as Go matches them."""
    from podnet.cni.spec.document import Document

    document = Document(value)
    try:
        code = document.unsigned("code")
        msg = document.text("msg")
        details = document.text("details")
    except CNIError:
        return None
    return CNIError(code, msg, details) if code or msg else None
