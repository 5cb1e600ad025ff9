// Stands for n8n's Webhook node: prints what is posted to it, and answers 200.
import { createServer } from 'node:http';

createServer((request, response) => {
  let body = '';
  request.on('data', (piece) => { body += piece; });
  request.on('end', () => {
    console.log(request.url, body);
    response.end('{"message":"Workflow was started"}');
  });
}).listen(7009, '127.0.0.1');
