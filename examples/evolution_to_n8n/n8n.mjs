// Stands for n8n: prints what is posted to its Webhook node, and how large the files are that come with it, which it fetches. It also
// stands for the web server in front of the folder with these files.
import { createServer } from 'node:http';
import { readFile } from 'node:fs/promises';

createServer(async (request, response) => {
  if (request.method === 'GET') {
    const file = await readFile(`data${new URL(request.url, 'http://n8n').pathname}`).catch(() => null);
    response.writeHead(file ? 200 : 404).end(file);
    return;
  }
  let body = '';
  for await (const piece of request) body += piece;
  const { message } = JSON.parse(body).data;
  console.log(request.url, JSON.stringify(message));
  if (message.mediaUrl) {
    const file = await (await fetch(message.mediaUrl)).arrayBuffer();
    console.log('fetched a file of', file.byteLength, 'bytes');
  }
  response.end('{"message":"Workflow was started"}');
}).listen(7009, '127.0.0.1');
