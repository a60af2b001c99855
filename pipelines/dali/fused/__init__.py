"""The CPU graph's one compiled operator: crop box → resize → mirror → colour → normalise, each image in one go."""
