"""What a person looks at: the mask and the answer of one row, the progress of a run, and its results."""
