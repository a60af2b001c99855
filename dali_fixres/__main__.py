"""``python -m dali_fixres`` is ``dali-fixres``."""

from dali_fixres.cli import main

if __name__ == "__main__":
    main()
