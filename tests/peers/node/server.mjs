// The reference: Socket.IO's own server, doing what evows does in global mode and nothing else.
//
//   node server.mjs 8080
//
// POST /webhook with an envelope emits it to every client of `/`, under the envelope's `event` as its
// name. PUT /instance/<name> opens a namespace. GET /healthz answers 200.
import { createServer } from "node:http";
import { Server } from "socket.io";

const http = createServer((request, response) => {
  if (request.method === "GET" && request.url === "/healthz") {
    response.end("ok");
    return;
  }
  if (request.method === "PUT" && request.url.startsWith("/instance/")) {
    io.of(request.url.slice("/instance".length));
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
    io.emit(envelope.event, envelope);
    response.writeHead(200, { "content-type": "application/json" }).end('{"accepted":1}');
  });
});

const io = new Server(http, { cors: { origin: "*" } });
const port = Number(process.argv[2] ?? 8080);
http.listen(port, "127.0.0.1", () => {
  process.stderr.write(`listening address=http://127.0.0.1:${http.address().port}\n`);
});
process.on("SIGTERM", () => process.exit(0));
