"""`make demo`: see an appliance at work. Exits 0 if all came out as it should, 1 with the reason if not."""

import os
import sys
import time

from demo.screen import Screen
from demo.story import play
from marchproxy.model.errors import MarchproxyError


def main() -> int:
    """Play the story; its exit code."""
    screen = Screen()
    if os.geteuid() != 0:
        screen.wrong("the demo builds network namespaces, which needs root", "run: sudo make demo")
        return 1
    started = time.monotonic()
    try:
        play(screen)
    except MarchproxyError as error:
        screen.wrong(error.message, error.hint)
        return 1
    except OSError as error:
        screen.wrong(f"a client was not served: {error}")
        return 1
    except KeyboardInterrupt:
        screen.wrong("stopped by you; everything that was built is gone again")
        return 130
    screen.heading(f"Done in {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
