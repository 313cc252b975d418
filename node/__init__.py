"""How a device learns and talks: `python -m node --coordinator URL`."""
