"""Move aside what cannot stay, so that a run computes it again."""
