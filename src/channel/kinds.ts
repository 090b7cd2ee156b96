// What a record is: its two highest bits of type. The ring carries them as they are.
//
//     0x0000 to 0x3fff   a message, with the program's own type
//     0x4000 to 0x7fff   a request: its id is to come back with the reply
//     0x8000 to 0xbfff   a reply, with the id of its request
//     0xc000             a failure in place of a reply: UTF-8 `name \n code \n message`
//     0xc001 to 0xfffd   reserved: whoever receives one refuses it
import { peerMisbehaved } from '../core/errors.js';

/** The greatest type that a program may give a message. */
export const TYPE_MAX = 0x3fff;

export type Kind = 0 | 1 | 2 | 3;
export const MESSAGE: Kind = 0;
export const REQUEST: Kind = 1;
export const REPLY: Kind = 2;
export const FAILURE: Kind = 3;
const KIND_SHIFT = 14;

/** A record's type, from a kind and a program's type. */
export function recordType(kind: Kind, type: number): number {
  return (kind << KIND_SHIFT) | type;
}

/** The kind of a record that came. @throws UkshmError `ERR_UKSHM_PEER_MISBEHAVED`. */
export function kindOf(recordType: number): Kind {
  const kind = (recordType >>> KIND_SHIFT) as Kind;
  if (kind > FAILURE || (kind === FAILURE && (recordType & TYPE_MAX) !== 0)) {
    throw peerMisbehaved(`a message of the reserved type ${recordType}`);
  }
  return kind;
}
