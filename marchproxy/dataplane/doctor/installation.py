"""Our own: the daemon, the store, and what lies about of both."""

import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from marchproxy import bpf
from marchproxy.dataplane.doctor.case import Case
from marchproxy.dataplane.doctor.finding import Finding, error, fine, warning
from marchproxy.model.certificate import Origin
from marchproxy.model.errors import MarchproxyError, NotPermitted
from marchproxy.model.names import DEFAULT_CLUSTER
from marchproxy.store.certificates import uses

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_WRITERS = stat.S_IWGRP | stat.S_IWOTH


def daemon(case: Case) -> Iterator[Finding]:
    """Whether it serves, and what it complains about."""
    if case.status is None:
        problem = case.daemon_problem
        text = problem.message if problem else "no daemon answers"
        found = warning if isinstance(problem, NotPermitted) else error
        yield found(text, f"asked at {case.runtime / 'control.sock'}", _command(problem, "marchproxy run"))
        return
    status = case.status
    for problem in status["problems"]:
        yield error(problem, "the daemon says so", "marchproxy status")
    running, stored = status["revision"]["sha256"], case.snapshot.sha256() if case.snapshot else ""
    if stored and running != stored:
        evidence = f"it carries {running[:12] or 'nothing'}, the store has {stored[:12]}"
        yield warning("the daemon has not taken the last revision over", evidence, "marchproxy diff")
    if not status["problems"]:
        yield fine("it serves", f"process {status['pid']}, version {status['version']}")


def store(case: Case) -> Iterator[Finding]:
    """Whether what is configured can be read, and means something."""
    where = str(case.store_file or "the database server")
    if case.store_problem:
        # Making another one over what is damaged would be the end of it.
        fix = _command(case.store_problem, "marchproxy restore FILE")
        yield error(case.store_problem.message, where, fix)
    elif case.policy_errors:
        text = f"{case.policy_errors} mistakes in what is configured"
        yield error(text, f"in the newest revision of {where}", "marchproxy check")
    else:
        yield fine("what is configured can be read", where)


def permissions(case: Case) -> Iterator[Finding]:
    """Secrets are for the service's user alone, and orders come from those who may give them."""
    wrong = []
    if case.store_file and case.store_file.exists():
        folder = case.store_file.parent
        files = [case.store_file, *sorted(folder.glob("*.key"))]
        wrong += [(path, _OTHERS, "others may read it", "go-rwx") for path in files]
        wrong.append((folder, _WRITERS, "others may put files there", "go-w"))
    wrong.append((case.runtime, _WRITERS, "others may put sockets there", "go-w"))
    wrong.append((case.runtime / "control.sock", stat.S_IRWXO, "everybody may give orders", "o-rwx"))
    found = False
    for path, forbidden, text, mode in wrong:
        if path.exists() and path.stat().st_mode & forbidden:
            found = True
            evidence = f"{path} has mode {stat.S_IMODE(path.stat().st_mode):o}"
            yield error(f"{path}: {text}", evidence, f"chmod {mode} {path}")
    if not found:
        looked = ", ".join(str(path) for path, *_ in wrong if path.exists())
        yield fine("store, keys and sockets are for their owner", looked or "there are none yet")


def certificates(case: Case) -> Iterator[Finding]:
    """Whether clients still accept what listeners show them."""
    if case.snapshot is None or not case.certificates:
        return
    now = datetime.now(UTC)
    ahead = timedelta(seconds=case.snapshot.settings.certificate_warning)
    users: dict[str, list[str]] = {}
    for user, name in uses(case.snapshot):
        users.setdefault(name, []).append(user)
    found = False
    for each in case.certificates:
        used, end = users.get(each.qualified, []), f"{each.facts.expires:%Y-%m-%d %H:%M} UTC"
        option = "" if each.cluster == DEFAULT_CLUSTER else f" --cluster {each.cluster}"
        renew = "pull --now" if each.fetched else "renew"
        fix = f"marchproxy cert {renew} {each.name}{option}"
        evidence = f"used by {', '.join(used)}" if used else "no listener uses it"
        if each.facts.expires <= now:
            found = True
            text = f"certificate {each.qualified} expired at {end}"
            yield error(text, evidence, fix) if used else warning(text, evidence, fix)
        elif each.warns(ahead) <= now and (used or each.origin is Origin.AUTHORITY):
            found = True
            yield warning(f"certificate {each.qualified} expires at {end}", evidence, fix)
    if not found:
        yield fine("no certificate that is used expires soon", f"{len(case.certificates)} in the store")


def pins(case: Case) -> Iterator[Finding]:
    """What daemons have left in the kernel."""
    if not case.bpffs.is_dir():
        return
    current = f"v{bpf.ABI}"
    for path in sorted(case.bpffs.iterdir()):
        if path.name != current:
            text = f"programs and flows of another version are still in the kernel: {path.name}"
            yield warning(text, str(path), f"rm -r {path}")
    if case.status is None and (case.bpffs / current).is_dir() and _has_links(case.bpffs / current):
        text = "no daemon runs, and the kernel goes on with what the last one left: old policy, no new names"
        yield warning(text, str(case.bpffs / current), "marchproxy run")
    elif case.status:
        yield fine("what is pinned is this daemon's", str(case.bpffs / current))


def _command(problem: MarchproxyError | None, otherwise: str) -> str:
    """What a hint says to do, without the words before it."""
    hint = problem.hint if problem else ""
    return hint.rpartition(": ")[2] or otherwise


def _has_links(folder: Path) -> bool:
    links = folder / "links"
    return links.is_dir() and any(links.iterdir())
