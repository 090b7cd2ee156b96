// Requests over a nats-server on loopback, which the listener starts. argv[2] is the folder in
// which the client is installed, and the server built.
import { spawn } from 'node:child_process';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { runRequests } from '../../../dist/bench/subjects/asking.js';
import { parseJob } from '../../../dist/bench/subjects/common.js';

const folder = process.argv[2];
const { connect } = createRequire(`${folder}/`)('nats');
const job = parseJob(process.argv.slice(3));
const SUBJECT = 'bench';

async function startServer() {
  const args = ['--addr', '127.0.0.1', '--port', '-1'];
  const server = spawn(join(folder, 'bin', 'nats-server'), args, {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  process.on('exit', () => server.kill());
  for await (const line of createInterface({ input: server.stderr })) {
    const found = /Listening for client connections on (\S+)/.exec(line);
    if (found !== null) return { server, address: found[1] };
  }
  throw new Error('nats-server did not start');
}

if (job.listens) {
  const { server, address } = await startServer();
  server.stderr.resume();
  const connection = await connect({ servers: address });
  connection.subscribe(SUBJECT, { callback: (_error, message) => message.respond(message.data) });
  await connection.flush();
  process.stdout.write(`ready ${address}\n`);
  process.stdin
    .on('end', async () => {
      await connection.close();
      server.kill();
    })
    .resume();
} else {
  const connection = await connect({ servers: job.address });
  await runRequests(job, async (body) => {
    return (await connection.request(SUBJECT, Buffer.from(body), { timeout: 10_000 })).data;
  });
  await connection.close();
}
