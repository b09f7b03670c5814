"""What the commands of the benchmark have in common."""

import sys
from collections.abc import Callable
from typing import NoReturn


def mistake(wrong: list[str], option: str, count: int, least: int) -> str | None:
    """Why a command cannot be followed: names that nothing has, or a count below the least."""
    if wrong:
        return f"nothing is called {', '.join(wrong)}; --help has the names"
    return f"{option} must be at least {least}" if count < least else None


def run(main: Callable[[], int]) -> NoReturn:
    """Ends the process with what the command returns; Ctrl-C is one line and no traceback."""
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("stopped")
