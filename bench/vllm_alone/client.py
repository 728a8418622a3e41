"""A streaming client of the completions API that must not be the bottleneck: while a workload runs
it only keeps what arrives, with the time; all reading of it comes afterwards."""
import asyncio
import gc
import hashlib
import json
import math
import time

HOST = "127.0.0.1"


class Answer:
    """What became of one request. Times are seconds of time.perf_counter()."""

    def __init__(self, request):
        self.request = request
        self.due = None     # when it should have been sent
        self.sent = None    # when it was
        self.pieces = []    # (time, bytes) as they arrived
        self.chunks = []    # (time, tokens) once read
        self.error = None

    @property
    def tokens(self):
        return [token for _, tokens in self.chunks for token in tokens]


class _Stream(asyncio.Protocol):
    """One connection with one request."""

    def __init__(self, message, pieces, ended):
        self.message = message
        self.pieces = pieces
        self.ended = ended

    def connection_made(self, transport):
        self.transport = transport
        transport.write(self.message)

    def data_received(self, data):
        self.pieces.append((time.perf_counter(), data))
        if data.endswith(b"0\r\n\r\n"):  # the last chunk: some servers leave the connection open
            self.transport.close()

    def connection_lost(self, error):
        if not self.ended.done():
            self.ended.set_result(error)


def encode_body(request, model):
    return json.dumps({
        "model": model, "prompt": request.prompt, "max_tokens": request.output, "temperature": 0,
        "ignore_eos": True, "stream": True, "return_token_ids": True}).encode()


def encode(request, model):
    body = encode_body(request, model)
    head = ("POST /v1/completions HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n"
            "Content-Length: %d\r\nConnection: close\r\n\r\n" % (HOST, len(body)))
    return head.encode() + body


def play(port, model, requests, limit, in_flight=None):
    """Sends every request when it is due and waits for all answers, at most `limit` seconds; never
    more than `in_flight` at a time, if given. Answers: the answers, to be read, and the share of a
    processor that the client took."""
    answers = [Answer(request) for request in requests]
    messages = [encode(request, model) for request in requests]
    gc.disable()  # a collection would stop all streams
    wall, own = time.perf_counter(), time.process_time()
    try:
        asyncio.run(_play(port, answers, messages, limit, in_flight))
    finally:
        wall, own = time.perf_counter() - wall, time.process_time() - own
        gc.enable()
    return answers, own / wall


async def _play(port, answers, messages, limit, in_flight):
    loop = asyncio.get_running_loop()
    slots = asyncio.Semaphore(in_flight) if in_flight else None
    begin = time.perf_counter()

    async def send(answer, message):
        answer.due = begin + answer.request.at
        delay = answer.due - time.perf_counter()
        if delay > 0:
            await asyncio.sleep(delay)
        if slots:
            await slots.acquire()
            answer.due = time.perf_counter()
        answer.sent = time.perf_counter()
        ended = loop.create_future()
        transport = None
        try:
            transport, _ = await loop.create_connection(
                lambda: _Stream(message, answer.pieces, ended), HOST, port)
            error = await ended
            answer.error = None if error is None else "connection lost: %s" % error
        except OSError as error:
            answer.error = "no connection: %s" % error
        except asyncio.CancelledError:
            answer.error = "no answer within %.0f s" % limit
        finally:
            if transport:
                transport.abort()
            if slots:
                slots.release()

    tasks = [asyncio.ensure_future(send(*pair)) for pair in zip(answers, messages)]
    _, late = await asyncio.wait(tasks, timeout=limit)
    for task in late:
        task.cancel()
    if late:
        await asyncio.wait(late)


def read(answer):
    """Turns the pieces into chunks of tokens, each with the time when its event was complete."""
    if answer.error is not None:
        return
    try:
        done = _read(answer)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        answer.error = "unreadable answer: %r" % error
        return
    answer.pieces = []
    if answer.error is None and not done:
        answer.error = "the answer broke off after %d tokens" % len(answer.tokens)
    if answer.error is None and len(answer.tokens) != answer.request.output:
        answer.error = "%d tokens instead of %d" % (len(answer.tokens), answer.request.output)


def _read(answer):
    raw, body, head, done = bytearray(), bytearray(), None, False
    for at, data in answer.pieces:
        raw += data
        if head is None:
            end = raw.find(b"\r\n\r\n")
            if end < 0:
                continue
            head = bytes(raw[:end]).decode("latin-1").lower()
            del raw[:end + 4]
        _unchunk(raw, body, "transfer-encoding: chunked" in head)
        while (end := body.find(b"\n\n")) >= 0:
            event = bytes(body[:end]).strip()
            del body[:end + 2]
            if event == b"data: [DONE]":
                done = True
            elif event.startswith(b"data: "):
                _take(answer, at, json.loads(event[6:]))
    status = head.split(" ", 2)[1] if head else "no status"
    if status != "200":
        answer.error = "%s: %s" % (status, bytes(body[:300]).decode(errors="replace").strip())
    return done


def _unchunk(raw, body, chunked):
    """Moves what is complete from `raw` to `body`."""
    if not chunked:
        body += raw
        raw.clear()
        return
    while (end := raw.find(b"\r\n")) >= 0:
        size = int(raw[:end].split(b";")[0], 16)
        if len(raw) < end + size + 4:
            return
        body += raw[end + 2:end + 2 + size]
        del raw[:end + size + 4]


def _take(answer, at, event):
    if "error" in event:
        answer.error = "the server says: %s" % json.dumps(event["error"])[:300]
        return
    for choice in event["choices"]:
        if choice.get("token_ids"):
            answer.chunks.append((at, choice["token_ids"]))


# ---- Figures -----------------------------------------------------------------------------------


def percentile(values, share):
    """The smallest value that at least `share` of `values` do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def digest(tokens):
    return hashlib.sha256(json.dumps(tokens).encode()).hexdigest()[:16]


def measure(answers):
    """Figures of answers without errors. TTFT counts from the moment when the request was due;
    TPOT is the mean time per token after the first, of each request; ITL the gaps between chunks."""
    gaps, ttft, tpot = [], [], []
    for answer in answers:
        times = [at for at, _ in answer.chunks]
        ttft.append(round((times[0] - answer.due) * 1e3, 3))
        if answer.request.output > 1:
            tpot.append(round((times[-1] - times[0]) * 1e3 / (answer.request.output - 1), 4))
        gaps += [(b - a) * 1e3 for a, b in zip(times, times[1:])]
    found = {
        "requests": len(answers),
        "tokens": sum(len(answer.tokens) for answer in answers),
        "seconds": max(a.chunks[-1][0] for a in answers) - min(a.due for a in answers),
        "ttft_ms": ttft, "tpot_ms": tpot,
        "late_ms_p99": percentile([(a.sent - a.due) * 1e3 for a in answers], 0.99),
        "digests": [digest(answer.tokens) for answer in answers],
    }
    if gaps:
        found["itl_ms"] = {"p50": percentile(gaps, 0.5), "p99": percentile(gaps, 0.99),
                           "max": max(gaps), "gaps": len(gaps)}
    return found
