"""Resized copies of a data set: encoded, and written as tar shards or class folders."""
