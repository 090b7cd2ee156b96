import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { pathToFileURL } from 'node:url';
import { ROOT } from './root.js';

describe('the check of glibc symbols', () => {
  it('names what needs a glibc newer than 2.28', async () => {
    const script = pathToFileURL(join(ROOT, 'scripts/prebuild.mjs')).href;
    const { tooNew } = (await import(script)) as { tooNew(symbols: string): string[] };
    const symbols = [
      '0000000000000000      DF *UND*  0000000000000000 (GLIBC_2.14) memcpy',
      '0000000000000000      DF *UND*  0000000000000000 (GLIBC_2.2.5) close',
      '0000000000000000      DF *UND*  0000000000000000 (GLIBC_2.28) fcntl64',
      '0000000000000000      DF *UND*  0000000000000000 (GLIBC_2.34) pthread_create',
      '0000000000000000      DF *UND*  0000000000000000  GLIBC_2.33  fstat',
      '0000000000000000  w   D  *UND*  0000000000000000  Base        napi_throw',
      '0000000000001220 g    DF .text  0000000000000005  Base        napi_register_module_v1',
    ].join('\n');
    assert.deepEqual(tooNew(symbols), ['pthread_create (GLIBC_2.34)', 'fstat (GLIBC_2.33)']);
  });
});
