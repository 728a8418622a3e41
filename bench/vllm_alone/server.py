"""One engine process, from its start to its certain end: a server over HTTP, or any command."""
import contextlib
import http.client
import socket
import subprocess
import time

from . import client, processes


GRACE = 10.0  # seconds for an engine to end when asked


class Failed(Exception):
    """What gave no result, and why, in one line; `log`: where more of it stands."""

    def __init__(self, why, log=None):
        super().__init__(why)
        self.log = log


class Engine:
    """A command in a session of its own, on some of the processors, if given. Its output goes to a
    file; it may be told lines."""

    def __init__(self, command, env, log, folder, is_told=False, cpus=None):
        self.command, self.env, self.log, self.folder = command, env, log, folder
        self.cpus = cpus
        self.stdin = subprocess.PIPE if is_told else subprocess.DEVNULL
        self.process = None
        self.ended_when_asked = True

    def __enter__(self):
        self.started = time.time()
        with open(self.log, "w") as output, processes.only_on(self.cpus):
            self.process = subprocess.Popen(
                self.command, stdin=self.stdin, stdout=output, stderr=subprocess.STDOUT,
                env=self.env, cwd=self.folder, start_new_session=True, text=True)
        return self

    def __exit__(self, *_):
        self.ended_when_asked = processes.end(self.process, GRACE)
        if self.process.stdin:
            with contextlib.suppress(OSError):  # a line that it never read
                self.process.stdin.close()

    def tell(self, line):
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        except OSError:
            self.check(wait=1.0)
            raise

    def check(self, wait=0.0):
        """Fails when the engine has ended, or does so within `wait` seconds."""
        try:
            status = self.process.wait(wait)
        except subprocess.TimeoutExpired:
            return
        raise Failed("the engine ended with status %d" % status, self.log)


class Server(Engine):
    """A vLLM server on a free port."""

    def __init__(self, make_command, env, log, folder, cpus=None):
        self.port = free_port()
        super().__init__(make_command(self.port), env, log, folder, cpus=cpus)

    def is_healthy(self):
        self.check()
        return self.request("GET", "/health", 2) == 200

    def request(self, method, path, limit):
        """The answer's status; None without an answer."""
        return self.answer(method, path, limit)[0]

    def answer(self, method, path, limit, body=None):
        """The answer's status, and its text; None and nothing without an answer."""
        connection = http.client.HTTPConnection(client.HOST, self.port, timeout=limit)
        try:
            connection.request(method, path, body,
                               {"Content-Type": "application/json"} if body else {})
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace")
        except (OSError, http.client.HTTPException):
            return None, ""
        finally:
            connection.close()


def free_port():
    with socket.socket() as probe:
        probe.bind((client.HOST, 0))
        return probe.getsockname()[1]
