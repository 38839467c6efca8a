"""nginx with limit_req. SETTINGS: {"rate": "10r/s", "limit_req": "burst=5 nodelay"}."""

import json
import os
import socket
import string
import sys
from pathlib import Path

descriptor, settings = sys.argv[1:]
template = string.Template(Path(__file__).with_name("nginx.conf").read_text())
port = socket.socket(fileno=os.dup(int(descriptor))).getsockname()[1]
# The worker reads them as another user.
Path.cwd().chmod(0o755)
Path("nginx.conf").write_text(template.substitute(json.loads(settings), port=port))
Path("answer.json").write_text("{}")
# Listening sockets that nginx inherits, as when it replaces itself by a newer nginx.
os.environ["NGINX"] = f"{descriptor};"
os.execlp("nginx", "nginx", "-p", f"{Path.cwd()}/", "-c", "nginx.conf", "-e", "stderr")
