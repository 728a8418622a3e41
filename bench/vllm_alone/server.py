"""One engine process, from its start to its certain end: a server over HTTP, or any command."""
import http.client
import socket
import subprocess
import time

from . import client, processes


class Failed(Exception):
    """A run that gave no result, and why, in one line."""


class Engine:
    """A command in a session of its own. Its output goes to a file."""

    def __init__(self, command, env, log, folder):
        self.command, self.env, self.log, self.folder = command, env, log, folder
        self.process = None
        self.ended_when_asked = True

    def __enter__(self):
        self.started = time.time()
        with open(self.log, "w") as output:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                env=self.env, cwd=self.folder, start_new_session=True)
        return self

    def __exit__(self, *_):
        self.ended_when_asked = processes.end(self.process)

    def check(self, wait=0.0):
        """Fails when the engine has ended, or does so within `wait` seconds."""
        try:
            status = self.process.wait(wait)
        except subprocess.TimeoutExpired:
            return
        raise Failed("the engine ended with status %d; see %s" % (status, self.log))


class Server(Engine):
    """A vLLM server on a free port."""

    def __init__(self, make_command, env, log, folder):
        self.port = free_port()
        super().__init__(make_command(self.port), env, log, folder)

    def wait_until_healthy(self, limit):
        """Answers the seconds from its start."""
        end = time.monotonic() + limit
        while time.monotonic() < end:
            self.check()
            if self._healthy():
                return time.time() - self.started
            time.sleep(0.02)
        raise Failed("not healthy within %.0f s; see %s" % (limit, self.log))

    def _healthy(self):
        connection = http.client.HTTPConnection(client.HOST, self.port, timeout=2)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def free_port():
    with socket.socket() as probe:
        probe.bind((client.HOST, 0))
        return probe.getsockname()[1]
