// linux/mman.h and asm-generic/mman-common.h. x86-64 and arm64 share these numbers.

export const PROT_NONE = 0;
export const PROT_READ = 1;
export const PROT_WRITE = 2;
export const PROT_EXEC = 4;
export const MAP_SHARED = 1;
export const MAP_PRIVATE = 2;
export const MAP_FIXED = 0x10;
export const MAP_ANONYMOUS = 0x20;
export const MAP_NORESERVE = 0x4000;
export const MADV_DONTFORK = 10;
export const MADV_HUGEPAGE = 14;
/** Linux 5.14. */
export const MADV_POPULATE_READ = 22;
/** Linux 5.14. */
export const MADV_POPULATE_WRITE = 23;
