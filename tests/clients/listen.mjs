// Connects as a stock Socket.IO client would and prints one JSON line for each thing that happens.
//
//   node listen.mjs '{"url": "http://127.0.0.1:8080/loja1", "options": {"transports": ["websocket"]}}'
//
// Keys: `url`; `options`, given to `io()` as they are; `namespaces`, further ones on the same
// connection; `emit`, events to send once connected. Ends when its standard input closes.
import { io } from "socket.io-client";

const { url, options = {}, namespaces = [], emit = [] } = JSON.parse(process.argv[2] ?? "{}");

function print(happened) {
  process.stdout.write(`${JSON.stringify(happened)}\n`);
}

// Buffers become {"$binary": "<hex>"}, so that an assertion can see that they were real buffers.
function shown(value) {
  if (Buffer.isBuffer(value)) return { $binary: value.toString("hex") };
  if (Array.isArray(value)) return value.map(shown);
  if (value !== null && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, shown(inner)]));
  }
  return value;
}

function follow(socket, namespace) {
  socket.on("connect", () => {
    print({ type: "connect", namespace, id: socket.id, transport: socket.io.engine.transport.name });
    for (const [name, ...args] of emit) socket.emit(name, ...args);
  });
  socket.on("connect_error", (error) => {
    const { message, description, context, data } = error;
    print({
      type: "connect_error",
      namespace,
      message,
      // The websocket transport gives an event whose own message is the interesting part.
      description: description?.message ?? description ?? null,
      body: context?.responseText ?? null,
      data: data ?? null,
      active: socket.active,
    });
  });
  socket.on("disconnect", (reason) => {
    print({ type: "disconnect", namespace, reason, active: socket.active });
  });
  socket.onAny((name, ...args) => {
    print({ type: "event", namespace, name, args: args.map(shown) });
  });
}

const root = io(url, { ...options, autoConnect: false });
const manager = root.io;
manager.on("open", () => {
  const { engine } = manager;
  print({ type: "open", transport: engine.transport.name });
  engine.once("upgrade", (transport) => print({ type: "upgrade", transport: transport.name }));
});
manager.on("reconnect", (attempt) => print({ type: "reconnect", attempt }));
manager.on("reconnect_attempt", (attempt) => print({ type: "reconnect_attempt", attempt }));

follow(root, new URL(url).pathname);
root.connect();
for (const namespace of namespaces) {
  const socket = manager.socket(namespace);
  follow(socket, namespace);
  socket.connect();
}

process.stdin.on("end", () => process.exit(0));
process.stdin.resume();
