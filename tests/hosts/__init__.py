"""Several hosts on one machine: each in namespaces of its own, joined by a network of their own."""
