"""Settings shipped as TOML files, in the form --config reads."""
