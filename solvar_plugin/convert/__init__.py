"""Between Scipion's sets and the engine's files."""
