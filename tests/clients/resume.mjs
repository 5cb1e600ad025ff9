// Follows one namespace as a stock Socket.IO client that asks for recovery, drops its transport at random moments,
// comes back by itself, and prints one JSON line for each thing that happens.
//
//   node resume.mjs '{"url": "http://127.0.0.1:8080/loja1", "options": {"query": {"apikey": "KEY"}}}'
//
// Keys: `url`; `options`, given to `io()`; `id`, where in an envelope its sequence id is, by default `data.key.id`;
// `every`, the least and the most milliseconds from one connect to the next drop; `drops`, how many there are, by
// default no end of them. Prints `{"connected": true, "recovered": ..}` for each connect, `{"id": .., "position": ..}`
// for each event, where `position` says whether a string came behind the envelope, and `{"disconnected": ..}` with the
// reason. Ends when its standard input closes.
import { io } from "socket.io-client";

const {
  url,
  options = {},
  id = "data.key.id",
  every: [least, most] = [50, 1500],
  drops = Infinity,
} = JSON.parse(process.argv[2] ?? "{}");
const path = id.split(".");
let left = drops;

function print(happened) {
  process.stdout.write(`${JSON.stringify(happened)}\n`);
}

const socket = io(url, {
  reconnectionDelay: 20,
  reconnectionDelayMax: 200,
  ...options,
  auth: { recover: true, ...options.auth },
});

// Not while it moves to another transport: a stock client that is closed then keeps the events of its last poll back, asks
// for what comes behind the ones before, and so hands them out twice.
function drop(engine) {
  if (engine.upgrading) setTimeout(drop, 1, engine);
  else engine.close();
}

socket.on("connect", () => {
  print({ connected: true, recovered: socket.recovered });
  if (left-- > 0) {
    // The engine of this moment: a later one is not this timer's to close.
    setTimeout(drop, least + Math.random() * (most - least), socket.io.engine);
  }
});
socket.on("connect_error", ({ message }) => print({ refused: message, active: socket.active }));
socket.on("disconnect", (reason) => print({ disconnected: reason }));
socket.onAny((_name, envelope, ...more) => {
  const found = path.reduce((value, key) => value?.[key], envelope);
  print({ id: found ?? null, position: typeof more.at(-1) === "string" });
});

process.stdin.on("end", () => process.exit(0));
process.stdin.resume();
