"""How asking the daemon or changing something may fail, beside what the model and the store raise."""

from marchproxy.model.errors import MarchproxyError


class InvalidPolicy(MarchproxyError):
    """What is configured would contradict itself; nothing was written."""


class Refused(MarchproxyError):
    """The daemon answered with an error; `kind` is the name of its class there."""

    def __init__(self, kind: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.kind = kind
