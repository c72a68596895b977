"""A WebSocket server, aiohttp's, that gives back what it gets: the suite knows all answers to that."""

import sys

from aiohttp import WSMsgType, web

LARGEST = 64 << 20


async def echo(request: web.Request) -> web.WebSocketResponse:
    """Give back messages until the other end goes."""
    socket = web.WebSocketResponse(max_msg_size=LARGEST, compress=True)
    await socket.prepare(request)
    async for message in socket:
        if message.type is WSMsgType.TEXT:
            await socket.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await socket.send_bytes(message.data)
    return socket


def main(address: str, port: int) -> None:
    """Serve until killed."""
    application = web.Application()
    application.router.add_get("/{path:.*}", echo)
    web.run_app(application, host=address, port=port, print=lambda *_: print("ready", flush=True))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
