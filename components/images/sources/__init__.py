"""Where images come from: one file per source; registry.py lists them."""
