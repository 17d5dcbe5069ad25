"""What a command says while it works: progress, the log, and how it ends by a signal."""
