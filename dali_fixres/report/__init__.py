"""What a person or another program gets to see: progress, tables, plots, environment records."""
