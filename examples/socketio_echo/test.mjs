// Joins both namespaces with the stock client, and expects what the README says.
import assert from "node:assert/strict";
import { createRequire } from "node:module";

const require = createRequire(new URL("../../tests/clients/package.json", import.meta.url));
const { io } = require("socket.io-client");

for (const namespace of ["/", "/custom"]) {
  const socket = io(`http://127.0.0.1:3000${namespace}`, { auth: { token: "123" }, forceNew: true });
  const [auth] = await new Promise((done) => socket.on("auth", (...args) => done(args)));
  assert.deepEqual(auth, { token: "123" });

  const back = new Promise((done) => socket.on("message-back", (...args) => done(args)));
  socket.emit("message", 1, "2", { 3: [true] }, Buffer.from([4, 5]));
  assert.deepEqual(await back, [1, "2", { 3: [true] }, Buffer.from([4, 5])]);

  const ack = await new Promise((done) => socket.emit("message-with-ack", 1, Buffer.from([6]), (...args) => done(args)));
  assert.deepEqual(ack, [1, Buffer.from([6])]);
  socket.disconnect();
}
