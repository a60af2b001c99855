"""Testing a network: accuracy over resolutions, crop ratios and views."""
