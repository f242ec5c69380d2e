"""The service with a seeded defect: `sanic tests.histories.serve`, with its name in HISTORIES_DEFECT."""

import os

from app import create_app
from tests.histories.defects import DEFECTS

app = create_app  # Sanic calls it, in each worker

DEFECTS[os.environ["HISTORIES_DEFECT"]]()
