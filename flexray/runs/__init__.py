"""The jobs: answer a data set, go on with it, nightly, again for its errors; export; submit to a cluster."""
