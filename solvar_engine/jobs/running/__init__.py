"""What every command needs while it runs: progress, status, memory, log, failures.

Commands use `tracking` (the status file from start to end), `progress`, `plans` (what they will need, held against
memory and disk), `memory` and `allocator`, `log` (the log file of a run) and `failures` (an error in words).
"""
