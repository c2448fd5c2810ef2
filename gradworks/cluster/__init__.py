"""One dvc.yaml on a cluster: what its stages become in Kubeflow Pipelines, and what comes back."""
