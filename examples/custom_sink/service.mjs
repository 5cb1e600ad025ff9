// A service that takes a line, prints it and answers `ok`. It ends with its first connection.
import { createServer } from 'node:net';
import { createInterface } from 'node:readline';

const server = createServer(async (socket) => {
  for await (const line of createInterface({ input: socket })) {
    console.log(line);
    socket.write('ok\n');
  }
  server.close();
});
server.listen(7001, '127.0.0.1');
