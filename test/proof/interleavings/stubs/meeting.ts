// In place of src/channel/meeting/: parties meet where the scenario has them meet.
export function listen(): never {
  throw new Error('listen() is not part of the build');
}

export function connect(): never {
  throw new Error('connect() is not part of the build');
}

export class SharedRegion {}
