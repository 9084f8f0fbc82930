"""`advmix`, and `python -m advmix_cli`."""

import signal


def run() -> None:
    """The console script. Until the program can say how it ends, a Ctrl-C ends it without a word: Python would show
    where its imports were."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)

    from advmix_cli.cli import main

    main()


if __name__ == "__main__":
    run()
