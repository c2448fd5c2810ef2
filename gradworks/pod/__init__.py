"""What a pod does: one stage of one run, its data from S3 and its outputs back."""
