"""The object store: DVC's objects; submitted runs with their records, logs and results."""
