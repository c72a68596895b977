"""`python -m conformance`: run the suites and put what came of them into docs/CONFORMANCE.md."""

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from conformance.suites import Outcome, run
from marchproxy.version import VERSION
from rig.servers import ROOT

PAGE = ROOT / "docs" / "CONFORMANCE.md"
BEGIN, END = "<!-- results -->\n", "<!-- end of results -->"
_WIDTH = 120


def table(outcomes: Sequence[Outcome]) -> str:
    """The results, and the names of what failed."""
    today = f"{datetime.now(UTC):%d %B %Y}"
    lines = [
        f"MarchProxy {VERSION}, {today}:",
        "",
        "| suite | against | passed | failed |",
        "|---|---|---|---|",
    ]
    for each in outcomes:
        said = f", {each.said}" if each.said else ""
        ran = each.passed or each.failed
        counts = f"{each.passed}{said} | {len(each.failed)}" if ran else f"{each.said} | "
        lines.append(f"| {each.suite} | {each.against} | {counts} |")
    for each in outcomes:
        if each.failed:
            lines += ["", f"Failed in {each.suite}, {each.against}:", ""]
            lines += [f"- {name}" for name in each.failed]
    return "\n".join(lines) + "\n"


def written(page: str, results: str) -> str:
    """The page with these results in the place of those that it has."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}{results}{END}{rest.partition(END)[2]}"


def main() -> int:
    """Exits 0 whatever the suites say: the page says it."""
    parser = argparse.ArgumentParser(prog="conformance", description=__doc__)
    parser.add_argument("--all", action="store_true", help="also the cases of WebSockets that take minutes")
    arguments = parser.parse_args()
    results = table(run(everything=arguments.all))
    PAGE.write_text(written(PAGE.read_text(), results))
    print(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
