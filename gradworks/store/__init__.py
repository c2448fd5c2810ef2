"""The object store: DVC's objects, the runs that were submitted, their records, logs and results."""
