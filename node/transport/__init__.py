"""What carries frames between devices on the real wire."""
