"""What becomes of a request that a mapping allows, and of its answer. Pure, for any version of HTTP."""

from collections.abc import Iterable
from dataclasses import dataclass

from marchproxy.model.actions import DEFAULT_REDIRECT, HeaderAction, header_action
from marchproxy.model.entities import Mapping
from marchproxy.model.httpfields import plain_name
from marchproxy.policy.paths import canonical_prefix

type Fields = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Actions:
    """Those of one mapping."""

    redirect: str = ""
    """Where clients are sent, with its places; empty: nowhere."""
    status: int = DEFAULT_REDIRECT
    path: str | None = None
    """What takes the place of `instead`; None: paths stay."""
    instead: str = ""
    """The beginning of canonical paths, in whole segments; empty: nothing is taken away."""
    whole: bool = False
    """All of the path is replaced."""
    sticky: bool = False
    """A cookie keeps browsers with one backend."""
    host: str = ""
    """What `Host` says; empty: what the client wrote."""
    request: tuple[HeaderAction, ...] = ()
    response: tuple[HeaderAction, ...] = ()

    @classmethod
    def of(cls, mapping: Mapping) -> "Actions | None":
        """Those of a mapping; None: it passes everything on as it is."""
        made = cls(
            redirect=mapping.redirect or "",
            status=mapping.redirect_status,
            path=mapping.rewrite_prefix,
            instead=canonical_prefix(mapping.path_prefix or "") if mapping.rewrite_prefix else "",
            whole=mapping.rewrite_prefix is not None and mapping.path is not None,
            sticky=mapping.sticky,
            host=mapping.rewrite_host or "",
            request=tuple([header_action(text) for text in mapping.request_headers]),
            response=tuple([header_action(text) for text in mapping.response_headers]),
        )
        return None if made == _NOTHING else made

    def target(self, target: str, path: str) -> str:
        """The target that a backend gets; `path` is the canonical path of `target`.

        What comes behind the prefix stays as the client wrote it, where its beginning can be told.
        """
        if self.path is None or path == "*":
            return target
        raw, question, query = target.partition("?")
        rest = ""
        if not self.whole:
            written = raw if _begins(raw, self.instead) else path
            if not _begins(written, self.instead):
                return target
            rest = written[len(self.instead) :]
        made = self.path.rstrip("/") + rest if rest else self.path
        # Two slashes at the beginning would name a host for some servers.
        return f"/{made.lstrip('/')}{question}{query}"

    def location(self, host: str, target: str, path: str) -> str:
        """Where a redirect leads. The query goes along, unless there is one; `host` is without port."""
        written, question, query = self.target("/" if path == "*" else target, path).partition("?")
        named = f"[{host}]" if ":" in host else host
        made = self.redirect.replace("{host}", named).replace("{path}", written)
        return made if "?" in self.redirect else f"{made}{question}{query}"


_NOTHING = Actions()


def act(actions: Iterable[HeaderAction], fields: Fields) -> Fields:
    """The fields of a message after some actions, one after the other."""
    found = list(fields)
    for action in actions:
        if action.verb != "add":
            plain = plain_name(action.name)
            found = [each for each in found if plain_name(each[0]) != plain]
        if action.verb != "remove":
            found.append((action.name, action.value))
    return tuple(found)


def _begins(path: str, prefix: str) -> bool:
    return path.startswith(prefix) and (len(path) == len(prefix) or not prefix or path[len(prefix)] == "/")
