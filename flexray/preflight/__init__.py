"""What would fail, before it does: `plan` looks at a run, `doctor` at a machine."""
