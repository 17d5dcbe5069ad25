"""What is committed, and what of it readers see."""
