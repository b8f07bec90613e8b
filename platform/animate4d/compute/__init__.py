"""One door to Ray: find or start a cluster, ship this package to its workers, and say clearly when it is too small."""
