"""Run a dvc.yaml on Kubeflow Pipelines: compile, submit, follow."""
