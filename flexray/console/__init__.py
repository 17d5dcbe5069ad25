"""What a command prints while it works: progress and the log; and how a signal ends it."""
