// asm-generic/resource.h

export const RLIMIT_MEMLOCK = 8;
export const RLIMIT_NOFILE = 7;
