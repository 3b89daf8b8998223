"""`python -m pipeline`, and the command `affectory`."""

from __future__ import annotations

from pipeline.stop import stoppable


def run() -> None:
    """Run a command until it is done or a signal ends it."""
    with stoppable():
        # Here, so that Ctrl-C while libraries load is one line as well.
        from pipeline.cli import main

        main()


if __name__ == "__main__":
    run()
