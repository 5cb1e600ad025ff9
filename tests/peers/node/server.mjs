// The reference: Socket.IO's own server, doing what evows does in global mode and nothing else.
//
//   node server.mjs 8080 [--recovery]
//
// POST /webhook with an envelope emits it to every client of `/`, under the envelope's `event` as its name; to those of
// `/<instance>` instead once POST /websocket/set/<instance> has opened that. GET /healthz answers 200.
// `--recovery` turns on connection state recovery.
import { createServer } from "node:http";
import { Server } from "socket.io";

const http = createServer((request, response) => {
  if (request.method === "GET" && request.url === "/healthz") {
    response.end("ok");
    return;
  }
  if (request.method === "POST" && request.url.startsWith("/websocket/set/")) {
    const instance = request.url.slice("/websocket/set/".length);
    namespaces.set(instance, io.of(`/${instance}`));
    response.end("ok");
    return;
  }
  if (request.method !== "POST" || !request.url.startsWith("/webhook")) {
    response.writeHead(404).end();
    return;
  }
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => {
    const envelope = JSON.parse(Buffer.concat(parts).toString());
    const to = namespaces.get(envelope.instance) ?? io;
    to.emit(envelope.event, envelope);
    response.writeHead(200, { "content-type": "application/json" }).end('{"accepted":1}');
  });
});

const recovery = process.argv.includes("--recovery") ? { connectionStateRecovery: {} } : {};
const io = new Server(http, { cors: { origin: "*" }, ...recovery });
const namespaces = new Map();
const port = Number(process.argv[2] ?? 8080);
http.listen(port, "127.0.0.1", () => {
  process.stderr.write(`listening address=http://127.0.0.1:${http.address().port}\n`);
});
process.on("SIGTERM", () => process.exit(0));
