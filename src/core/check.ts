// Checks of arguments and of our own assumptions. Imports only errors.
import { invalidArgument } from './errors.js';

/** A whole number in `[min, max]`, or `ERR_UKSHM_INVALID_ARGUMENT`. */
export function checkInteger(name: string, value: number, min: number, max: number): number {
  if (!Number.isInteger(value) || value < min || value > max) {
    throw invalidArgument(name, value, `a whole number from ${min} to ${max}`);
  }
  return value;
}

/** A power of two in `[min, max]`, or `ERR_UKSHM_INVALID_ARGUMENT`. */
export function checkPowerOfTwo(name: string, value: number, min: number, max: number): number {
  if (!Number.isInteger(value) || value < min || value > max || (value & (value - 1)) !== 0) {
    throw invalidArgument(name, value, `a power of two from ${min} to ${max}`);
  }
  return value;
}

/** What must hold if ukshm itself is right. */
export function assert(holds: boolean, what: string): asserts holds {
  if (!holds) throw new Error(`ukshm assertion failed: ${what}`);
}
