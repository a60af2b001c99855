"""The whole method in one run: training, sweeps, fine-tuning and the report."""
