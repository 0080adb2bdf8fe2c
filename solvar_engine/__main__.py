"""Lets `python -m solvar_engine` do what `solvar-engine` does."""

from solvar_engine.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
