"""`gradworks artifacts`: what the stages made, in the DVC remote, by stage, cell and path rather than by hash."""
