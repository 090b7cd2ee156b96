// linux/fcntl.h and asm-generic/fcntl.h

export const F_DUPFD_CLOEXEC = 1030;
export const F_ADD_SEALS = 1033;
export const F_GET_SEALS = 1034;
export const F_SEAL_SEAL = 1;
export const F_SEAL_SHRINK = 2;
export const F_SEAL_GROW = 4;
export const F_SEAL_WRITE = 8;
/** Linux 5.1. */
export const F_SEAL_FUTURE_WRITE = 16;
