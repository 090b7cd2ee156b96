// In place of what no scenario needs: Node's streams, and memory that only the kernel can find.
export class ChannelDuplex {
  constructor() {
    throw new Error('a stream over a channel is not part of the build');
  }
}

export function freshBytes(lengthBytes: number): Uint8Array {
  return new Uint8Array(lengthBytes);
}

export function keepFreed(): void {}
