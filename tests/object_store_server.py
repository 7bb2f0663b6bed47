"""A server for tests that speaks Google Cloud Storage's protocol: `python FILE PORT`.

gcp-storage-emulator with a bucket named "bucket", and what it lacks and tensorstore relies on: conditions on
generations, and their header.
"""

import logging
import sys
import threading
import urllib.parse

from gcp_storage_emulator import server
from gcp_storage_emulator.exceptions import NotFound


class _Handler(server.RequestHandler):
    _generation = ""

    def do_GET(self):
        if self._meets_conditions(304):
            super().do_GET()

    def do_POST(self):
        if self._meets_conditions(412):
            super().do_POST()

    def do_DELETE(self):
        if self._meets_conditions(412):
            super().do_DELETE()

    def end_headers(self):
        if self._generation:
            self.send_header("x-goog-generation", self._generation)
        super().end_headers()

    def _meets_conditions(self, unchanged):
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        name = urllib.parse.unquote(url.path.partition("/o/")[2]) or query.get("name", "")
        try:
            now = self.storage.get_file_obj("bucket", name)["generation"]
        except NotFound:
            now = "0"
        wrong = query.get("ifGenerationMatch", now) != now
        same = query.get("ifGenerationNotMatch") == now
        self._generation = now if self.command == "GET" and query.get("alt") == "media" and now != "0" else ""
        if wrong or same:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(412 if wrong else unchanged)
            self.send_header("Content-Length", "0")
            self.end_headers()
        return not (wrong or same)


if __name__ == "__main__":
    logging.disable()
    server.RequestHandler = _Handler
    server.create_server("127.0.0.1", int(sys.argv[1]), in_memory=True, default_bucket="bucket").start()
    threading.Event().wait()
