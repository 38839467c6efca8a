"""Processes whose every word is looked at."""

from __future__ import annotations

import os

#: Their environment: in debug mode asyncio would tell of each moment in which a busy machine stood
#: still.
ENVIRONMENT = {**os.environ, "PYTHONDEVMODE": "", "PYTHONASYNCIODEBUG": ""}
