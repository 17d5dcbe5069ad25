"""Who sees whom: the layout of a sample, the one visibility rule, and its BlockMask."""
