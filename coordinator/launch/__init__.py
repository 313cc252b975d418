"""Where devices are started; a device is `python -m node --coordinator URL` everywhere."""
