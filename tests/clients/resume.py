"""Follows one namespace as python-socketio does, leaves at random moments, comes back for what it missed, and prints
one JSON line for each thing that happens.

    resume.py '{"url": "http://127.0.0.1:8080", "namespace": "/loja1", "headers": {"apikey": "KEY"}}' --since earliest

Keys: `url`, `namespace`, `transports`, `headers`, `auth`, as `AsyncClient.connect` takes them; `id`, where in an
envelope its sequence id is, by default `data.key.id`; `every`, the least and the most seconds from one connect to the
next leave; `leaves`, how many there are, by default no end of them; `packets`, how many packets of one answer to a
poll it takes, which are 16 by default, fewer than a server may send. `auth` is sent with `since`: the last position
that it has everything up to. That is an event's own where `auth` has `{"positions": "envelope"}`. Otherwise it is the
`head` of an `evows:ready`, but only once as many events came behind that as there are offsets from `from` to `head`:
whoever leaves before still misses some of them. Prints `{"connected": true, "since": ..}`, `{"ready": ..}`, and `{"id": .., "arguments": ..}` for each event, where
`arguments` is how many the handler was given.
Ends when its standard input closes.
"""

import argparse
import asyncio
import functools
import json
import random
import sys

import engineio.payload
import socketio


def show(happened):
    print(json.dumps(happened), flush=True)


def offset(position):
    return int(position.partition(":")[2])


class Connection:
    """How much of what it missed a client does not have yet."""

    def __init__(self):
        self.head = self.behind = None

    def ready(self, told):
        self.head = told["head"]
        self.behind = offset(self.head) - offset(told["from"])

    def event(self):
        if self.behind:
            self.behind -= 1


class Follower:
    """Where the client is, from connection to connection."""

    def __init__(self, options, since):
        self.options = options
        self.since = since
        self.path = options.get("id", "data.key.id").split(".")
        self.namespace = options.get("namespace", "/")
        self.sees_positions = options.get("auth", {}).get("positions") == "envelope"

    def auth(self):
        return {**self.options.get("auth", {}), "since": self.since}

    async def received(self, connection, name, *args):
        envelope = args[0] if args and isinstance(args[0], dict) else {}
        if name == "evows:ready":
            connection.ready(envelope)
            show({"ready": envelope})
        else:
            connection.event()
            inner = functools.reduce(
                lambda value, key: value.get(key) if isinstance(value, dict) else None, self.path, envelope
            )
            show({"id": inner, "arguments": len(args)})
        if self.sees_positions:
            self.since = envelope.get("_evows", {}).get("position", self.since)
        elif connection.behind == 0:
            self.since = connection.head

    async def stay(self, seconds):
        """One connection, for so long at the most."""
        client = socketio.AsyncClient(reconnection=False)
        # An event that was still on its way belongs to the connection that it came over.
        received = functools.partial(self.received, Connection())
        client.on("*", received, namespace=self.namespace)
        since = self.since
        try:
            await client.connect(
                self.options["url"],
                headers=self.options.get("headers", {}),
                auth=self.auth,
                transports=self.options.get("transports"),
                namespaces=[self.namespace],
                # Its own limit of a second is short on a machine that is busy with tests.
                wait_timeout=10,
            )
        except socketio.exceptions.ConnectionError as error:
            show({"failed": str(error)})
            await client.disconnect()
            await asyncio.sleep(0.1)
            return
        show({"connected": True, "since": since})
        ended = asyncio.ensure_future(client.wait())
        try:
            # Not `wait_for`, whose cancellation would reach into the client's own tasks.
            await asyncio.wait({ended}, timeout=seconds)
        finally:
            await client.disconnect()


async def follow(options, since):
    follower = Follower(options, since)
    left = options.get("leaves", float("inf"))
    while left > 0:
        await follower.stay(random.uniform(*options.get("every", [0.05, 1.5])))
        left -= 1
    while True:
        await follower.stay(None)


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("options", type=json.loads)
    parser.add_argument("--since", default="earliest")
    given = parser.parse_args()
    payload = engineio.payload.Payload
    payload.max_decode_packets = given.options.get("packets", payload.max_decode_packets)
    following = asyncio.ensure_future(follow(given.options, given.since))
    loop = asyncio.get_running_loop()
    ended = loop.run_in_executor(None, sys.stdin.read)
    # A defect of this program must not look like silence.
    await asyncio.wait({following, ended}, return_when=asyncio.FIRST_COMPLETED)
    following.cancel()
    try:
        await following
    except asyncio.CancelledError:
        pass


asyncio.run(main())
