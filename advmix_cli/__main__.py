"""`python -m advmix_cli` is `advmix`."""

from advmix_cli.cli import main

if __name__ == "__main__":
    main()
