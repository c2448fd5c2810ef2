"""Objectives: what is minimised on a batch. One file is one entry (see `gradworks.spec.Objective`)."""
