"""Settings shipped as TOML files, in the form --config reads; the first line of each is its command."""
