"""One module per command: each has `run(params) -> None`, reads and writes files and calls the numerical rooms."""
