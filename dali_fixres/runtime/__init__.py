"""What a run needs from its surroundings: devices, processes, folders, progress, data."""
