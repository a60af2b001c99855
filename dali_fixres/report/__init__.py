"""Results for people and programs: tables, plots, the report of `fixres`, JSON files, the model card."""
