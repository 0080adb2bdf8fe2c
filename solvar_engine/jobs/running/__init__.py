"""What every command needs while it runs: progress, status, memory, log, failures."""
