"""As much of a server of Weights and Biases as `wandb sync` needs: it takes all and keeps it."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

RUN = {
    "id": "r", "name": "r", "displayName": "r", "description": "", "config": "{}", "sweepName": None,
    "historyLineCount": None, "project": {"id": "p", "name": "advmix", "entity": {"id": "e", "name": "me"}},
}  # fmt: skip


@contextmanager
def server():
    """Yields its address, and what it has got: (path, text) of each request."""
    got = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_POST(self):
            text = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode(errors="replace")
            got.append((self.path, text))
            content = b"{}"
            if self.path == "/graphql":
                names = json.loads(text)["variables"].get("files") or []
                files = [{"name": name, "uploadUrl": f"{address}/upload/{name}"} for name in names]
                data = {
                    "viewer": {"id": "u", "entity": "me", "flags": "{}", "username": "me", "teams": {"edges": []}},
                    "serverInfo": {"cliVersionInfo": {}, "features": [], "latestLocalVersionInfo": None},
                    "upsertBucket": {"bucket": RUN, "inserted": True},
                    "createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files},
                }
                content = json.dumps({"data": data}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(content)

        do_PUT = do_GET = do_POST  # noqa: N815

    serving = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    address = f"http://127.0.0.1:{serving.server_port}"
    thread = threading.Thread(target=serving.serve_forever)
    thread.start()
    try:
        yield address, got
    finally:
        serving.shutdown()
        thread.join()
        serving.server_close()
