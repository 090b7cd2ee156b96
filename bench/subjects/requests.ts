// ukshm's requests through its public interface: `channel.request` and `serve`.
import { connect, listen, serve } from '../../src/index.js';
import { isSpinning, runRequests } from './asking.js';
import { parseJob, sayReady } from './common.js';

const SPIN_MICROS = 1000;

const job = parseJob();
const spinMicros = isSpinning(job) ? SPIN_MICROS : 0;

if (job.listens) {
  const listener = await listen(job.address, { spinMicros });
  const server = serve(listener, (request) => request.bytes, { concurrency: 1024 });
  sayReady();
  process.stdin.on('end', () => void server.close()).resume();
} else {
  const channel = await connect(job.address, { spinMicros });
  await runRequests(job, async (body) => {
    const reply = await channel.request(body);
    const { bytes } = reply;
    reply.release();
    return bytes;
  });
  await channel.close();
}
