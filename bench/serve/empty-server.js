// node:http with nothing behind it: what no server on it can be below. Its argument is the length of each answer.
import { createServer } from "node:http";

const body = "x".repeat(Number(process.argv[2]));
const headers = { "content-type": "application/json", "content-length": body.length };
const server = createServer((_request, response) => response.writeHead(200, headers).end(body));
server.listen(0, "127.0.0.1", () => process.stderr.write(`Ready: http://127.0.0.1:${server.address().port}\n`));
