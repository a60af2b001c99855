"""Testing a network: accuracy over resolutions, crop ratios and views, and what its answers are compared with."""
