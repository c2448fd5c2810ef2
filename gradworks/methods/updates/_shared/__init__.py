"""What updates share."""
