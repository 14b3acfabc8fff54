"""Commands."""

from __future__ import annotations

import os
import sys
import warnings


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 the work failed, 2 the call or its input is wrong."""
    from polyfuse.cli.app import app
    from polyfuse.core.errors import PolyfuseError

    warnings.showwarning = _show_warning
    try:
        app()
    except PolyfuseError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("stopped", 1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if os.environ.get("POLYFUSE_TRACEBACK"):
            raise
        _fail(f"{type(error).__name__}: {error} (set POLYFUSE_TRACEBACK=1 to see where)", 1)


def _fail(message: str, code: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    print(f"warning: {message}", file=sys.stderr)
