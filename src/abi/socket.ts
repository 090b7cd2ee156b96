// sys/socket.h, asm-generic/socket.h and linux/un.h

export const AF_UNIX = 1;
export const SOCK_STREAM = 1;
export const SOCK_SEQPACKET = 5;
export const SOCK_NONBLOCK = 2048;
export const SOCK_CLOEXEC = 524288;
export const SOL_SOCKET = 1;
export const SO_ERROR = 4;
export const SO_PEERCRED = 17;
/** Linux 6.5. */
export const SO_PEERPIDFD = 77;
/** Linux 6.16: 0 makes a sender of descriptors fail with EPERM. */
export const SO_PASSRIGHTS = 83;
export const MSG_DONTWAIT = 0x40;
export const MSG_NOSIGNAL = 0x4000;
export const SHUT_RDWR = 2;
/** Bytes of `sun_path`. */
export const UNIX_PATH_MAX = 108;
