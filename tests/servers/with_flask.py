"""Flask with Flask-Limiter. SETTINGS: arguments of Limiter."""

import json
import sys
import time

from flask import Flask, Response, request
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address
from werkzeug.serving import make_server

descriptor, settings = sys.argv[1:]
journal: list[str] = []
app = Flask(__name__)
limiter = Limiter(get_remote_address, app=app, storage_uri="memory://", **json.loads(settings))


@app.get("/-/journal")
@limiter.exempt
def show_journal() -> Response:
    return Response("".join(journal), mimetype="text/plain")


@app.get("/<path:path>")
def answer(path: str) -> dict[str, str]:
    return {}


@app.after_request
def note(response: Response) -> Response:
    if request.path != "/-/journal":
        journal.append(f"{time.time()} {response.status_code}\n")
    return response


make_server("127.0.0.1", 0, app, threaded=True, fd=int(descriptor)).serve_forever()
