"""What a person looks at: the mask of one sample, and the summary of a run."""
