"""Weightings: how much each example counts. One file is one entry (see `gradworks.spec.Weighting`)."""
