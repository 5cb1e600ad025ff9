// Sends text and bytes over both transports and expects them back.
import assert from "node:assert/strict";
import { createRequire } from "node:module";

const require = createRequire(new URL("../../tests/clients/package.json", import.meta.url));
const { WebSocket } = createRequire(require.resolve("engine.io-client"))("ws");
const url = "http://127.0.0.1:3000/engine.io/?EIO=4";

const opened = await (await fetch(`${url}&transport=polling`)).text();
const { sid } = JSON.parse(opened.slice(1));
const session = `${url}&transport=polling&sid=${sid}`;
const posted = await fetch(session, { method: "POST", body: "4hello\x1ebAQIDBA==" });
assert.equal(await posted.text(), "ok");
assert.equal(await (await fetch(session)).text(), "4hello\x1ebAQIDBA==");

const socket = new WebSocket(`${url.replace("http", "ws")}&transport=websocket`);
const messages = [];
await new Promise((done, failed) => {
  socket.on("error", failed);
  socket.on("message", (data, isBinary) => {
    if (!isBinary && data[0] === 0x30) {
      socket.send("4hello");
      socket.send(Buffer.from([1, 2, 3, 4]));
    } else {
      messages.push(isBinary ? [...data] : data.toString());
      if (messages.length === 2) done();
    }
  });
});
assert.deepEqual(messages, ["4hello", [1, 2, 3, 4]]);
socket.close();
