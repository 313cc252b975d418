"""Become whoever the folder of runs belongs to, if started as root; then become the command.

So what a run leaves in a folder of the host is the user's who owns that folder, whatever their number is. The
image itself runs as a user without rights: only compose starts it as root, with no right but to do this.
"""

import os
import sys
from pathlib import Path

if os.getuid() == 0:
    owner = Path("/runs").stat()
    os.setgroups([])
    os.setgid(owner.st_gid)
    os.setuid(owner.st_uid)
os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606
