"""Files and folders that survive a kill: atomic replacement, locks, the cache folder."""
