"""A miniature of vLLM's multiprocess executor: a process for each rank, orders in the order they
were given, and steps in flight: the scheduler runs ahead of the ranks by up to DEPTH of them."""
import multiprocessing
import traceback

DEPTH = 4
OF_WORKER = ("initialize_from_config", "execute_model", "sample_tokens")


class Executor:
    """`main(pipe, rank)` runs in a process for each rank, `method` is how it is started."""

    def __init__(self, ranks, main, method):
        context = multiprocessing.get_context(method)
        self.pipes, self.processes = [], []
        for rank in range(ranks):
            ours, theirs = context.Pipe()
            process = context.Process(target=main, args=(theirs, rank), daemon=True)
            process.start()
            theirs.close()
            self.pipes.append(ours)
            self.processes.append(process)
        self.in_flight = 0
        self.failed = False  # a rank died, so nothing can be expected of the others

    def initialize_from_config(self, kv_cache_config):
        self.call("initialize_from_config", kv_cache_config)

    def execute_model(self, scheduler_output):
        self._send("execute_model", scheduler_output)
        self._send("sample_tokens", None)
        self.in_flight += 2
        self._drain(2 * DEPTH)

    def call(self, method, *args):
        """The answers of all ranks."""
        self._drain(0)
        self._send(method, *args)
        return self._receive()

    def _send(self, method, *args):
        for pipe in self.pipes:
            try:
                pipe.send((method, args))
            except OSError:
                self.failed = True

    def _drain(self, most):
        while self.in_flight > most:
            self._receive()
            self.in_flight -= 1

    def _receive(self):
        answers = []
        for pipe in self.pipes:
            try:
                answer = None if self.failed else pipe.recv()
            except (EOFError, OSError):
                self.failed, answer = True, None
            if isinstance(answer, str):
                raise AssertionError("in a rank: " + answer)
            answers.append(answer)
        return answers


def serve(pipe, worker, other):
    """In a rank: calls what it is told; what is not of a worker, on `other`."""
    while True:
        try:
            method, args = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(getattr(worker if method in OF_WORKER else other, method)(*args))
        except Exception:
            pipe.send(traceback.format_exc())
