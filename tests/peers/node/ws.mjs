// What Node can do without Socket.IO: the `ws` server, each envelope one text frame.
//
//   node ws.mjs 8080
//
// POST /webhook with an envelope sends it to every client. GET /healthz answers 200.
import { createServer } from "node:http";
import { WebSocketServer } from "ws";

const http = createServer((request, response) => {
  if (request.method === "GET" && request.url === "/healthz") {
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
    const text = JSON.stringify(JSON.parse(Buffer.concat(parts).toString()));
    for (const client of server.clients) client.send(text);
    response.writeHead(200, { "content-type": "application/json" }).end('{"accepted":1}');
  });
});

const server = new WebSocketServer({ server: http, perMessageDeflate: false });
const port = Number(process.argv[2] ?? 8080);
http.listen(port, "127.0.0.1", () => {
  process.stderr.write(`listening address=http://127.0.0.1:${http.address().port}\n`);
});
process.on("SIGTERM", () => process.exit(0));
