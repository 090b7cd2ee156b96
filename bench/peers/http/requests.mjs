// HTTP over a Unix socket: node:http answers, undici asks, one connection for each request under
// way. argv[2] is the folder in which undici is installed.
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { inFlight, runRequests } from '../../../dist/bench/subjects/asking.js';
import { parseJob } from '../../../dist/bench/subjects/common.js';

const job = parseJob(process.argv.slice(3));

if (job.listens) {
  const server = createServer((request, response) => {
    const parts = [];
    request.on('data', (part) => parts.push(part));
    request.on('end', () => response.end(Buffer.concat(parts)));
  });
  server.listen(job.address, () => process.stdout.write('ready\n'));
  process.stdin
    .on('end', () => {
      server.close();
      server.closeAllConnections();
    })
    .resume();
} else {
  const { Pool } = createRequire(`${process.argv[2]}/`)('undici');
  const pool = new Pool('http://localhost', { socketPath: job.address, connections: inFlight(job) });
  await runRequests(job, async (body) => {
    const copy = Buffer.from(body);
    const { body: reply } = await pool.request({ path: '/', method: 'POST', body: copy });
    return new Uint8Array(await reply.arrayBuffer());
  });
  await pool.close();
}
