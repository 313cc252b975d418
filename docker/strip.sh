#!/bin/sh
# Take out of /opt/hearsay what no run needs: the tests of other packages, and pip.
set -eu
find /opt/hearsay -type d -name tests -prune -exec rm -rf {} +
pip uninstall --yes pip setuptools
