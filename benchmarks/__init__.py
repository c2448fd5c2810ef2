"""Cost and error of every gradient method, measured: `python -m benchmarks.methods`."""
