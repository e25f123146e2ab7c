"""A server on this machine that speaks the Hugging Face Hub's protocol for models.

Repositories live in memory. What is asked of it is what huggingface_hub asks of the Hub: to make a
repository and branches, to say how each file is to be sent, to take large files by Git LFS and all
in one commit, to describe a repository and its tree, and to send files.
"""

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse

import yaml

NAME = r"(?P<name>[\w.-]+/[\w.-]+)"


class Repository:
    """Commits by their names, each a dictionary of files; branches name commits."""

    def __init__(self):
        self.commits = {}
        self.branches = {}
        self.large = set()
        self.commit("main", {})

    def commit(self, branch, files):
        digest = hashlib.sha1(repr((branch, len(self.commits), sorted(files.items()))).encode())
        self.commits[digest.hexdigest()] = files
        self.branches[branch] = digest.hexdigest()
        return digest.hexdigest()

    def find(self, revision):
        commit = self.branches.get(revision, revision)
        return commit if commit in self.commits else None


class Hub(ThreadingHTTPServer):
    """The server; `repositories` and `requests` can be looked at, and `down` makes it fail."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories = {}
        self.objects = {}
        self.requests = []
        self.down = False
        self.cut = False
        """whether files end in the middle"""

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, value=b"", status=200, **headers):
        if not isinstance(value, bytes):
            value = json.dumps(value).encode()
            headers["Content-Type"] = "application/json"
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(value)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(value)

    def refuse(self, status, code):
        self.answer({"error": code}, status, X_Error_Code=code, X_Error_Message=code)

    def handle_any(self):
        length = int(self.headers.get("Content-Length") or 0)
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b"".join(iter(self.chunk, b""))
        else:
            body = self.rfile.read(length)
        path = unquote(urlparse(self.path).path)
        self.server.requests.append((self.command, path))
        if self.server.down:
            return self.answer({"error": "down"}, 503)
        for (command, pattern), act in ROUTES.items():
            found = re.fullmatch(pattern, path)
            if found and self.command in command:
                parts = found.groupdict()
                if "name" in parts and parts["name"] not in self.server.repositories:
                    return self.refuse(404, "RepoNotFound")
                return act(self, body, **parts)
        return self.answer({"error": f"no route {self.command} {path}"}, 404)

    def chunk(self):
        size = int(self.rfile.readline(), 16)
        content = self.rfile.read(size)
        self.rfile.readline()
        return content

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    def create(self, body):
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.server.repositories:
            return self.answer({"error": "exists", "url": f"{self.server.url}/{name}"}, 409)
        self.server.repositories[name] = Repository()
        self.answer({"url": f"{self.server.url}/{name}"})

    def branch(self, body, name, branch):
        repository = self.server.repositories[name]
        if branch in repository.branches:
            return self.answer({"error": "exists"}, 409)
        repository.branches[branch] = repository.branches["main"]
        self.answer({})

    def validate(self, body):
        text = json.loads(body)["content"]
        front = text.split("---")[1] if text.startswith("---") else ""
        data = yaml.safe_load(front) if front else None
        if not isinstance(data, dict) or "license" not in data:
            return self.answer({"errors": [{"message": "no metadata"}], "warnings": []}, 400)
        self.answer({"errors": [], "warnings": []})

    def preupload(self, body, name, revision):
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
                "oid": None,
            }
            for file in json.loads(body)["files"]
        ]
        self.answer({"files": files})

    def batch(self, body, name):
        objects = [
            {
                **each,
                "actions": {"upload": {"href": f"{self.server.url}/lfs/{each['oid']}"}},
            }
            for each in json.loads(body)["objects"]
        ]
        self.answer({"transfer": "basic", "objects": objects})

    def put(self, body, oid):
        if hashlib.sha256(body).hexdigest() != oid:
            return self.refuse(400, "WrongHash")
        self.server.objects[oid] = body
        self.answer()

    def commit(self, body, name, revision):
        repository = self.server.repositories[name]
        files = dict(repository.commits[repository.find(revision)])
        for line in body.splitlines():
            step = json.loads(line)
            value = step["value"]
            if step["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif step["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
                repository.large.add(value["path"])
        commit = repository.commit(revision, files)
        url = f"{self.server.url}/{name}/commit/{commit}"
        self.answer({"success": True, "commitOid": commit, "commitUrl": url})

    def describe(self, body, name, revision="main"):
        repository = self.server.repositories[name]
        commit = repository.find(revision)
        if commit is None:
            return self.refuse(404, "RevisionNotFound")
        names = [{"rfilename": path} for path in repository.commits[commit]]
        self.answer({"id": name, "modelId": name, "sha": commit, "siblings": names, "tags": []})

    def refs(self, body, name):
        branches = [
            {"name": branch, "ref": f"refs/heads/{branch}", "targetCommit": commit}
            for branch, commit in self.server.repositories[name].branches.items()
        ]
        self.answer({"branches": branches, "tags": [], "converts": []})

    def tree(self, body, name, revision):
        repository = self.server.repositories[name]
        entries = []
        for path, content in repository.commits[repository.find(revision)].items():
            oid = hashlib.sha1(content).hexdigest()
            entry = {"type": "file", "path": path, "size": len(content), "oid": oid}
            if path in repository.large:
                sha256 = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 130}
            entries.append(entry)
        self.answer(entries)

    def resolve(self, body, name, revision, file):
        repository = self.server.repositories[name]
        commit = repository.find(revision)
        if commit is None:
            return self.refuse(404, "RevisionNotFound")
        if file not in repository.commits[commit]:
            return self.refuse(404, "EntryNotFound")
        content = repository.commits[commit][file]
        headers = {
            "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            "X_Repo_Commit": commit,
            "Accept_Ranges": "bytes",
        }
        if self.server.cut and self.command == "GET":
            headers["Content_Length"] = str(len(content))
            self.answer(content[: len(content) // 2], **headers)
            self.close_connection = True
            return None
        return self.answer(content, **headers)


ROUTES = {
    (("POST",), r"/api/repos/create"): Handler.create,
    (("POST",), r"/api/validate-yaml"): Handler.validate,
    (("POST",), rf"/api/models/{NAME}/branch/(?P<branch>.+)"): Handler.branch,
    (("POST",), rf"/api/models/{NAME}/preupload/(?P<revision>.+)"): Handler.preupload,
    (("POST",), rf"/api/models/{NAME}/commit/(?P<revision>.+)"): Handler.commit,
    (("POST",), rf"/{NAME}\.git/info/lfs/objects/batch"): Handler.batch,
    (("PUT",), r"/lfs/(?P<oid>\w+)"): Handler.put,
    (("GET",), rf"/api/models/{NAME}"): Handler.describe,
    (("GET",), rf"/api/models/{NAME}/revision/(?P<revision>.+)"): Handler.describe,
    (("GET",), rf"/api/models/{NAME}/refs"): Handler.refs,
    (("GET",), rf"/api/models/{NAME}/tree/(?P<revision>[^/]+)"): Handler.tree,
    (("GET", "HEAD"), rf"/{NAME}/resolve/(?P<revision>[^/]+)/(?P<file>.+)"): Handler.resolve,
}


@contextmanager
def running_hub():
    """Run the server while the block runs."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
