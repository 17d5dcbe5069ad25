"""Kill processes of real runs on a real cluster, one after another, and count what is lost or doubled."""
