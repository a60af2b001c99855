"""The on-disk forms of data sets, one module each."""
