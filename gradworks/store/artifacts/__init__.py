"""`gradworks artifacts`: outputs of stages in the DVC remote, by stage, cell and path rather than by hash."""
