"""`serve`, without a model: every answer begins after $STUB_FIRST seconds and has a token every
$STUB_NEXT seconds. Two tokens share a chunk where $STUB names "pairs"."""
import argparse
import asyncio
import json
import os

import vllm

FIRST = float(os.environ.get("STUB_FIRST", "0.01"))
NEXT = float(os.environ.get("STUB_NEXT", "0.001"))


class Service:
    def __init__(self):
        self.asked = 0

    async def answer(self, reader, writer):
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            if head.startswith("get /health"):
                status = b"503 no" if vllm.told("sick") else b"200 OK"
                writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")
            elif head.startswith("post /reset_prefix_cache"):
                assert os.environ.get("VLLM_SERVER_DEV_MODE") == "1"
                if vllm.told("keep"):
                    print("Failed to reset prefix cache because some blocks are not freed yet",
                          flush=True)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            else:
                length = int(head.split("content-length: ")[1].split("\r\n")[0])
                await self.complete(json.loads(await reader.readexactly(length)), writer)
            await writer.drain()
            writer.close()
        except (OSError, asyncio.IncompleteReadError):
            pass

    async def complete(self, asked, writer):
        self.asked += 1
        assert asked["stream"] and asked["ignore_eos"] and asked["return_token_ids"]
        assert asked["temperature"] == 0 and asked["model"] == "m"
        if vllm.told("crash") and self.asked > 12:
            os._exit(7)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
                     b"Content-Type: text/event-stream\r\n\r\n")
        loop = asyncio.get_running_loop()
        begin, together = loop.time(), 2 if vllm.told("pairs") else 1
        for i in range(0, asked["max_tokens"], together):
            await asyncio.sleep(max(0, begin + FIRST + i * NEXT - loop.time()))
            ids = [vllm.token(asked["prompt"], k)
                   for k in range(i, min(i + together, asked["max_tokens"]))]
            self.event(writer, json.dumps({"choices": [{"index": 0, "text": "", "token_ids": ids}]}))
        self.event(writer, "[DONE]")
        writer.write(b"0\r\n\r\n")

    @staticmethod
    def event(writer, text):
        data = b"data: " + text.encode() + b"\n\n"
        writer.write(b"%x\r\n" % len(data) + data + b"\r\n")


async def serve(port):
    server = await asyncio.start_server(Service().answer, "127.0.0.1", port, backlog=1024,
                                        limit=1 << 22)
    async with server:
        await server.serve_forever()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=["serve"])
    parser.add_argument("model")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--kv-cache-memory-bytes", type=int, choices=[20 << 30], required=True)
    parser.add_argument("--api-server-count", type=int, required=True)
    options, _ = parser.parse_known_args()
    vllm.started("serve")
    asyncio.run(serve(options.port))


if __name__ == "__main__":
    main()
