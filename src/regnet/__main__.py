"""`regnet` and `python -m regnet`: the command line, in a process of its own."""

import atexit
import os
import signal
import sys


def run() -> None:
    """Run the command line and end the process; takes its arguments from `sys.argv`.

    The process ends as soon as output is flushed and all exit handlers have run: unloading OpenVINO
    would take another tenth of a second.
    """
    status = 1

    def leave() -> None:
        left = status
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):  # nobody reads it any more, or it is closed
                left = left or 1
        os._exit(left)

    atexit.register(leave)  # the first handler to be registered is the last to run

    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until `main` takes it, nothing is to be done

    from regnet.cli import main

    try:
        main()
        status = 0
    except SystemExit as exc:
        status = exc.code if isinstance(exc.code, int) else int(exc.code is not None)
        raise


if __name__ == "__main__":
    run()
