"""Many objects: manifest, ledger, fan-out over the Ray pool, report and gallery."""
