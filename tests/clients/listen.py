"""Connects as python-socketio does and prints one JSON line for each thing that happens.

    listen.py '{"url": "http://127.0.0.1:8080", "namespaces": ["/loja1"], "transports": ["websocket"]}'

Keys: `url`, `namespaces`, `transports`, `headers`, `auth`, as `AsyncClient.connect` takes them; `packets`, how
many packets of one answer to a poll it takes, which are 16 by default, fewer than a server may send. Ends when its
standard input closes.
"""

import asyncio
import json
import sys

import engineio.payload
import socketio


def show(happened):
    print(json.dumps(happened), flush=True)


def shown(value):
    """Bytes become {"$binary": "<hex>"}, so that an assertion can see that they were real bytes."""
    if isinstance(value, (bytes, bytearray)):
        return {"$binary": value.hex()}
    if isinstance(value, list):
        return [shown(inner) for inner in value]
    if isinstance(value, dict):
        return {key: shown(inner) for key, inner in value.items()}
    return value


def follow(client, namespace):
    async def connected():
        show({
            "type": "connect",
            "namespace": namespace,
            "id": client.get_sid(namespace),
            "transport": client.transport(),
        })

    async def refused(data=None):
        message = data.get("message") if isinstance(data, dict) else data
        show({"type": "connect_error", "namespace": namespace, "message": message})

    async def disconnected(reason=None):
        show({"type": "disconnect", "namespace": namespace, "reason": reason})

    async def received(name, *args):
        show({"type": "event", "namespace": namespace, "name": name, "args": shown(list(args))})

    client.on("connect", connected, namespace=namespace)
    client.on("connect_error", refused, namespace=namespace)
    client.on("disconnect", disconnected, namespace=namespace)
    client.on("*", received, namespace=namespace)


async def end_of_input():
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, sys.stdin.read)


async def main():
    options = json.loads(sys.argv[1])
    namespaces = options.get("namespaces", ["/"])
    payload = engineio.payload.Payload
    payload.max_decode_packets = options.get("packets", payload.max_decode_packets)
    client = socketio.AsyncClient(reconnection_delay=0.2, reconnection_delay_max=1)
    for namespace in namespaces:
        follow(client, namespace)
    try:
        await client.connect(
            options["url"],
            headers=options.get("headers", {}),
            auth=options.get("auth"),
            transports=options.get("transports"),
            namespaces=namespaces,
            # Its own limit of a second is short on a machine that is busy with tests.
            wait_timeout=10,
        )
    except socketio.exceptions.ConnectionError as error:
        show({"type": "failed", "message": str(error)})
    await end_of_input()
    await client.disconnect()


asyncio.run(main())
