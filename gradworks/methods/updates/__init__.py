"""Updates: how the batches of one step make one gradient. One file is one entry (see `gradworks.spec.Update`)."""
