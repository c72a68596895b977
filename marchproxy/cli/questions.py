"""Questions that a person answers at a terminal, or a script with a line of stdin for each."""

from collections.abc import Callable

from marchproxy.cli.context import Environment
from marchproxy.cli.errors import Declined, WrongUsage, warn
from marchproxy.model.errors import InvalidValue, MarchproxyError

_YES_NO = {"y": True, "yes": True, "true": True, "n": False, "no": False, "false": False}


class Questions:
    """Asked on stderr; an empty line takes the default, which stands in brackets."""

    def __init__(self, environment: Environment, *, silent: bool) -> None:
        """`silent`: nobody is asked, and every question has its default for an answer."""
        self._environment = environment
        self._silent = silent

    def ask[Answer](
        self, question: str, default: str | None, read: Callable[[str], Answer], flag: str
    ) -> Answer:
        """The answer, as `read` makes it of the text. `flag` gives it from the command line.

        At a terminal what `read` refuses is asked again. Raises what it refuses otherwise, `WrongUsage` where
        there is no answer and no default, `Declined` where somebody ends the input.
        """
        if self._silent:
            if default is None:
                raise WrongUsage(f"nothing says: {question}", hint=f"give {flag}, or an answers file")
            return read(default)
        while True:
            text = self._line(question, default, flag)
            try:
                return read(text)
            except MarchproxyError as error:
                if not self._environment.interactive:
                    raise
                warn(self._environment, error.message, error.hint)

    def agree(self, question: str, default: bool, flag: str) -> bool:
        """Yes or no."""
        return self.ask(question, "yes" if default else "no", lambda text: read_yes(question, text), flag)

    def _line(self, question: str, default: str | None, flag: str) -> str:
        stderr = self._environment.stderr
        while True:
            stderr.write(f"{question} [{default}]: " if default is not None else f"{question}: ")
            stderr.flush()
            line = self._environment.stdin.readline()
            if not self._environment.interactive:
                # Nobody's Enter has ended the line.
                stderr.write(f"{line.strip()}\n")
            if not line:
                if self._environment.interactive:
                    stderr.write("\n")
                    raise Declined("nothing was written")
                raise WrongUsage(
                    f"stdin has no answer to: {question}", hint=f"give {flag}, or an answers file"
                )
            if text := line.strip() or default:
                return text
            if not self._environment.interactive:
                raise WrongUsage(f"an empty line is no answer to: {question}", hint=f"give {flag}")


def read_yes(field: str, text: str) -> bool:
    """Yes or no in words. Raises `InvalidValue`."""
    answer = _YES_NO.get(text.strip().lower())
    if answer is None:
        raise InvalidValue(field, text, "yes or no")
    return answer
