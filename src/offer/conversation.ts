// One question to the thread that answers for another process.
import { EPOLLIN, EPOLLRDHUP } from '../abi/epoll.js';
import { EAGAIN, ECONNRESET, EINTR, EPIPE } from '../abi/errno.js';
import { peerMisbehaved, SyscallError } from '../core/errors.js';
import { nowMs, processorCount } from '../sys/clock.js';
import { closeLine, idleSockets, type Line } from '../sys/idle-sockets.js';
import { closeForeign } from '../sys/memory.js';
import { whenReady } from '../sys/ready.js';
import { receiveDescriptors, send } from '../sys/socket.js';
import type { Patience } from './reach.js';
import { type Answer, answerIn, CHALLENGE, PACKET_BYTES_MAX, requestOf } from './wire.js';

/** The most descriptors in one packet: the kernel's SCM_MAX_FD. */
const DESCRIPTORS_MAX = 253;
/** How long an answer is looked for before the wait sleeps. */
const LOOK_ON_MS: number = processorCount() > 1 ? 0.1 : 0;
const NO_NONCE = new Uint8Array(8);
/** A process that challenges and never answers is left. */
const CHALLENGES_MAX = 3;

/** A packet that came. */
export interface Packet {
  readonly answer: Answer;
  readonly bytes: Uint8Array;
}

export class Conversation {
  readonly #pid: number;
  readonly #line: Line;
  readonly #patience: Patience;
  readonly #bytes: Uint8Array = new Uint8Array(PACKET_BYTES_MAX);
  readonly #fds: Int32Array = new Int32Array(DESCRIPTORS_MAX).fill(-1);

  /** The connection is the conversation's from now on. */
  constructor(pid: number, line: Line, patience: Patience) {
    this.#pid = pid;
    this.#line = line;
    this.#patience = patience;
  }

  /**
   * Asks, and answers challenges.
   * @returns the first answer; `undefined`: the other side hung up before it said anything.
   */
  async ask(kind: number, address: number): Promise<Packet | undefined> {
    let nonce: Uint8Array = NO_NONCE;
    for (let challenges = 0; challenges <= CHALLENGES_MAX; challenges++) {
      const result = send(this.#line.fd, requestOf(kind, address, nonce));
      if (result === -EPIPE || result === -ECONNRESET) return undefined;
      if (result < 0) throw new SyscallError('send', result, this.#patience.what);
      const packet = await this.next();
      if (packet?.answer.status !== CHALLENGE) return packet;
      nonce = packet.answer.nonce;
    }
    throw peerMisbehaved('it challenges again and again');
  }

  /** The next packet, its descriptors in `takeDescriptors`; `undefined` at a hang-up. */
  async next(): Promise<Packet | undefined> {
    const received = this.#lookOn() ?? (await this.#sleep());
    if (received === 0 || received === -ECONNRESET) return undefined;
    if (received < 0) throw new SyscallError('recvmsg', received, this.#patience.what);
    const bytes = this.#bytes.slice(0, received);
    const answer = answerIn(bytes);
    if (answer === undefined) throw peerMisbehaved('its answer is none of ukshm');
    return { answer, bytes };
  }

  /** The descriptors of the last packet: the caller's to close, apart. */
  takeDescriptors(): Int32Array {
    const end = this.#fds.indexOf(-1);
    const fds = this.#fds.slice(0, end < 0 ? undefined : end);
    this.#fds.fill(-1);
    return fds;
  }

  /** The connection is closed, or kept for the next conversation: only if all answers came. */
  close(complete: boolean = false): void {
    closeForeign(this.#fds);
    if (complete) idleSockets().put(this.#pid, this.#line);
    else closeLine(this.#line);
  }

  /** Answers come within some microseconds, as a rule: sleeping and waking would take longer. */
  #lookOn(): number | undefined {
    const untilMs = nowMs() + LOOK_ON_MS;
    do {
      const result = this.#receive();
      if (result !== undefined) return result;
    } while (nowMs() < untilMs);
    return undefined;
  }

  #sleep(): Promise<number> {
    const { fd } = this.#line;
    return whenReady(fd, EPOLLIN | EPOLLRDHUP, this.#patience.deadline, () => this.#receive());
  }

  #receive(): number | undefined {
    const result = receiveDescriptors(this.#line.fd, this.#bytes, this.#room());
    return result === -EAGAIN || result === -EINTR ? undefined : result;
  }

  /** Descriptors that nobody took are closed before others come. */
  #room(): Int32Array {
    if (this.#fds[0] !== -1) {
      closeForeign(this.#fds);
      this.#fds.fill(-1);
    }
    return this.#fds;
  }
}
