"""Image sets: found or downloaded, checked, unpacked once per machine."""
