"""`python -m pipeline`."""

from .stop import stoppable

if __name__ == "__main__":
    with stoppable():
        # Here, so that Ctrl-C while libraries load is one line as well.
        from .cli import main

        main()
