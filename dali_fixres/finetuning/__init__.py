"""FixRes: what is trained at the test resolution, and how."""
